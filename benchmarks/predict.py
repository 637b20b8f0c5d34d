"""Images/s, FLOP/s, memory and compile time of prediction, beside PyTorch's on the same machine.

  python benchmarks/predict.py
  python benchmarks/predict.py --peer --rounds=9 --column_devices=1,2

Ours is the evaluation's step: from uint8 crops to sums of loss and errors. PyTorch's goes from
floats to logits.
"""

import contest

if __name__ == '__main__':
  contest.main('predict', __doc__)
