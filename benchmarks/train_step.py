"""Images/s, FLOP/s, memory and compile time of a training step, beside PyTorch's on the same machine.

  python benchmarks/train_step.py
  python benchmarks/train_step.py --peer --rounds=9 --column_devices=1,2
  python benchmarks/train_step.py --without=library_fusions,huge_pages
  python benchmarks/train_step.py --config=configs/cifar10.py --steps=20 --peer
  python benchmarks/train_step.py --before=../another_checkout --column_devices=1,2
  python benchmarks/train_step.py --precision=float32,bfloat16 --batch_size=128,1024,4096 --steps=20

Our step takes uint8 crops and prepares them (mirror images, lighting, mean); PyTorch's takes floats.
"""

import contest

if __name__ == '__main__':
  contest.main('train', __doc__)
