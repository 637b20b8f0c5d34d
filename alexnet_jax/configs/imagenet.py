"""The paper: AlexNet on ImageNet, two columns.

Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural Networks,
NIPS 2012. Every field that the paper gives has its value. Where the paper is silent, the released
2012 code decides: the convolutions' paddings and the rounding up of conv1's output, biases without
weight decay, response norms within a column. Three choices are neither's: the lighting is that of
pixels in [0, 1], the only range in which the paper's formula gives usable colors; the learning rate
is cut after five epochs without improvement, where the authors cut it by hand; and images are resized
with bicubic interpolation, for the paper names none.

conv1's output is 55x55x96, 290,400 neurons; figure 2's caption has 253,440, which is 55x48x96.

Command:  python launch.py --config=configs/imagenet.py --config.data.data_dir=TFDS_FOLDER
Cost:     90 epochs of 1.28 million images, 4.1 GFLOP an image: 4.8e17 FLOP. From the measured speeds,
          34 days on 2 CPU cores; 46 minutes on an H200 in bfloat16, if the input keeps up. Not run here.
Expected: 40.7% top-1 and 18.2% top-5 error on the ILSVRC-2012 validation images, ten views
          (paper, table 2; not yet reproduced here).

This is the base from which the other configs differ.
"""

from ml_collections import config_dict

from alexnet_jax.models.alexnet import AlexNet
from alexnet_jax.models.options import LAYERS


def get_config() -> config_dict.ConfigDict:
  """Returns the paper's configuration."""
  config = config_dict.ConfigDict()
  config.model = _model()

  config.data = data = config_dict.ConfigDict()
  # A tfds data set, 'folder', or one that comes with the program: 'digits' (scikit-learn's),
  # 'road_signs' or 'rare_road_signs'.
  data.name = 'imagenet2012'
  # Folder of tfds's data sets, of photographs, or of ImageNet's tar files; None: tfds's own folder.
  data.data_dir = config_dict.placeholder(str)
  data.train_split = 'train'  # or a part of it, as tfds writes it: 'train[:90%]'
  data.validation_split = 'validation'  # the split on which errors are measured
  data.image_size = 256  # shorter side scaled to this, then the central square (section 2)
  # How images are resized: 'paper', bicubic, rotated as EXIF says; or 'torchvision', the pixels of its
  # Resize and CenterCrop, with which its weights are evaluated: bilinear, not rotated.
  data.resize = 'paper'
  # Images of other sizes are shrunk once, into a tfds data set in this folder; None: tfds's own.
  data.prepared_dir = config_dict.placeholder(str)
  # Of shrunk images: 'jpeg' (quality 95), 'png' (lossless), or 'auto': PNG for 10,000 and fewer.
  data.encoding = 'auto'
  data.unreadable_limit = 0.001  # the share of files that may be unreadable; ten always may
  data.validation_fraction = 0.1  # held out of each class of a folder without validation
  # In a folder: 1 if the classes are a split's folders, 2 if they are the folders in these, as in
  # a/abbey, and so on; None: as the folders show; where they do not, an error lists the depths.
  data.class_depth = config_dict.placeholder(int)
  # A split that fits, decoded, is held in memory and shuffled whole; a larger one is read as it is
  # used, and shuffled in blocks of so many megabytes of encoded images.
  data.memory_megabytes = 512

  config.augment = augment = config_dict.ConfigDict()
  # Random crops of the model's input size (section 4.1): offsets 0 to 31 each way, and mirror
  # images, make 2048 variants. The 2012 code draws from 0 to 32.
  augment.crop_offsets = 32
  augment.flip = True  # mirror images, of half the draws (section 4.1)
  augment.images_per_draw = 1  # consecutive images that share a crop and flip; 32 in the 2012 code
  # Each image is turned about its center by an angle drawn uniformly, from minus this to this. 0:
  # none, as in the paper; a Keras tutorial uses 30.
  augment.rotation_degrees = 0.0
  # The mean image is subtracted from each pixel: at the crop's own place ('pixel'), from any crop
  # its central part ('center', the 2012 code), or its mean color ('channel').
  augment.mean = 'pixel'
  # Multiplies the centered pixels, 0 to 255: a number, or one each for red, green and blue.
  augment.pixel_scale = config_dict.placeholder(object)
  augment.pixel_scale = 1.0
  augment.lighting = lighting = config_dict.ConfigDict()
  # Standard deviation of the PCA lighting's normal draws, as (from epoch, value): section 4.1.
  lighting.std = ((0, 0.1),)
  # What the draws multiply: 'eigenvalues' of the RGB covariance of pixels in [0, 1] (the paper)
  # or 'standard_deviations' of pixels in [0, 255] (the 2012 code).
  lighting.scale = 'eigenvalues'
  lighting.rescale = False  # divide lit images by 1 + std, as the 2012 code does

  config.optimizer = optimizer = config_dict.ConfigDict()
  optimizer.learning_rate = 0.01  # section 5
  # With train.batch_size = k * base_batch_size the rate is multiplied by k ('linear': Krizhevsky,
  # arXiv:1404.5997, found it best; Goyal et al., arXiv:1706.02677), by the square root of k ('sqrt':
  # it keeps the updates' variance, also 1404.5997), or left as it is ('none'). The decay stays.
  optimizer.batch_size_rule = 'none'
  optimizer.base_batch_size = 128  # the batch size for which the rate was chosen
  optimizer.momentum = 0.9  # section 5
  optimizer.weight_decay = 0.0005  # of weights only
  optimizer.lr_decay_factor = 10.0  # what each cut divides the rate by (section 5)
  optimizer.max_lr_decays = 3  # how often the rate is cut, at the most
  optimizer.patience = 5  # epochs without improvement before a cut; the paper did it by hand
  optimizer.lr_decay_epochs = ()  # cut the rate after so many epochs, as (50, 57), instead of by `patience`
  optimizer.bias_lr_multiplier = 1.0  # the biases' multiple of the rate; 2 in the 2012 code
  optimizer.lr_decay_biases = True  # whether the biases' rate is cut too; not in the 2012 code
  # Each layer's multiple of the rate, as (from epoch, multiple): ((0, 0.1), (50, 0.0)) starts at
  # a tenth and freezes the layer, momentum and all, after 50 epochs. Empty: 1 throughout.
  optimizer.lr_multipliers = config_dict.ConfigDict(dict.fromkeys(LAYERS, ()))
  # Each layer's multiple of the weight decay.
  optimizer.weight_decay_multipliers = config_dict.ConfigDict(dict.fromkeys(LAYERS, 1.0))

  config.train = train = config_dict.ConfigDict()
  train.batch_size = 128  # over all devices (section 5)
  # Each device's part of a batch goes through the network in so many microbatches, and their
  # gradients are summed: the same numbers, to rounding, in less memory.
  train.gradient_accumulation_steps = 1
  train.num_epochs = 90  # section 5
  train.num_steps = config_dict.placeholder(int)  # stop after so many steps, if set
  train.seed = 0  # seeds initial weights, order, crops, mirror images, lighting and dropout
  # A workdir, checkpoint or file of weights to start from, as `alexnet_jax.load` takes it: layers
  # whose shapes agree are loaded.
  train.init_from = config_dict.placeholder(str)
  # Steps between lines of metrics.jsonl, each the mean since the last one.
  train.log_every_steps = 50
  # Steps, as (first, last), counted from 1, that jax's profiler traces into WORKDIR/profile; () for
  # none. The first step after a start compiles, so begin later.
  train.profile_steps = ()
  # What the network computes in: 'float32', or 'bfloat16' with float32 parameters, gradients' sums
  # and loss: 1.7 times as fast on an H200 (docs/performance.md); on a CPU float32 is faster.
  train.precision = 'float32'
  # Let XLA's CPU backend hand products and sums to its library where that is known to be right and
  # fast; see alexnet_jax/parallel/xla.py.
  train.library_fusions = True

  config.checkpoint = checkpoint = config_dict.ConfigDict()
  # Save every so many steps too, besides each epoch's end.
  checkpoint.every_steps = config_dict.placeholder(int)
  checkpoint.keep = 2  # newest checkpoints kept; the best one is always kept

  config.mesh = mesh = config_dict.ConfigDict()
  # Devices over which the columns are spread: 'auto' (two where there are two, emulated ones on
  # a CPU), 1 or 2.
  mesh.column_devices = config_dict.placeholder(object)
  mesh.column_devices = 'auto'
  # Pairs of devices, or single ones, over which each batch is spread; 'auto': all.
  mesh.data_devices = config_dict.placeholder(object)
  mesh.data_devices = 'auto'
  return config.lock()


def _model() -> config_dict.ConfigDict:
  """The paper's network; `models/alexnet.py` and `models/options.py` describe each field."""
  model = config_dict.ConfigDict(AlexNet(parent=None).to_config())
  model.num_classes = config_dict.placeholder(int)  # None: as many as the data have
  model.num_classes = 1000
  for name in LAYERS:
    model[name].weight_std = config_dict.placeholder(float)
    model[name].bias = config_dict.placeholder(float)
  return model
