"""AlexNet, the 2012 paper, in JAX and Flax: two columns on two devices."""
