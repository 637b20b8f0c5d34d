"""The paper on ILSVRC-2010, whose test labels are public: the set of most of its experiments.

From folders: FOLDER/train/SYNSET/*, FOLDER/val/SYNSET/* and FOLDER/test/SYNSET/*, 1,000 synsets,
1.2 million, 50,000 and 150,000 images. The learning rate is cut by the validation error; the paper's table 1
is of the test images, which evaluation takes.

Command:  python launch.py --config=configs/imagenet2010.py --config.data.data_dir=FOLDER
          and then the same with --mode=evaluate --config.data.validation_split=test
Cost:     as configs/imagenet.py.
Expected: 37.5% top-1 and 17.0% top-5 error on the test images, ten views; 39.0 and 18.3% by
          center crops (paper, section 6 with its table 1 and footnote 5; not run here).
"""

from ml_collections import config_dict

from alexnet_jax.configs import imagenet


def get_config() -> config_dict.ConfigDict:
  """Returns the configuration."""
  config = imagenet.get_config()
  config.data.name = 'folder'
  return config
