r"""Images of your own: settings that work on most small sets without thinking.

Run:     python main.py --config configs/own_images.py --workdir runs/photos --config.dataset=photos
Quick:   python main.py --config configs/own_images.py:quick --workdir runs/photos-quick \
             --config.dataset=photos
Data:    python -m caecnn_jax.data.dataset photos    # says what is there, without training
Time:    on two CPU cores with AVX-512 5 minutes for the test run alone on Fashion-MNIST's 60,000
         images; for 5,000 small ones in folders 2 minutes quick and 18 in full, on slow cores
         twice as long: the epochs follow from the number of images (image_budget).
Result:  test accuracy 0.9288 there (docs/results.md).

The rates of best.py and a quicker CNN; every class is drawn as often as the largest one.
"""

from configs import best, default


def get_config(arg=None):
    """Returns the experiment; `arg` may be "quick"."""
    config = best.get_config()

    # Your data: a folder of CLASS/*.jpg (or train/CLASS/... and test/CLASS/...), a CSV file, an
    # .npz file, a folder of IDX files; docs/data.md has them all.
    config.dataset = "cifar10"
    config.image_size = 32  # pixels: 64 shows finer detail and takes four times as long
    config.fit = "crop"  # the middle of the image; "pad" keeps all of it, "stretch" distorts it
    config.channels = 0  # with blocks of 0 as below: grey where every image is, else RGB
    config.test_share = 0.2  # held out of each class where there is no test part

    # Rare classes: nothing is taken away, and the classes below the largest are drawn again.
    config.train_data_regulation = {}
    config.train_data_expansion = default.extra({"all": "largest"})

    # Augmentation: set flip_probability to 0 where left and right matter (text, digits), and
    # max_angle to 180 where there is no upright (micrographs, aerial photographs). Of tens of
    # thousands of images, seen a few times each, more is learnt with max_shift 2; of few images
    # less (docs/results.md). A hole may hide all that a small image shows.
    config.aug.flip_probability = 0.5
    config.aug.max_angle = 0.0
    config.aug.max_shift = 4
    config.aug.hole_probability = 0.0

    # The last epochs see images that are flipped alone: where each is seen ten times, 0.008 better.
    config.refine_epochs = 4

    # 0: as many channels as the images have.
    config.cae.enc_block_sizes = ((0, 6),)
    config.cae.dec_block_sizes = ((6, 0),)
    # Less arithmetic than best.py's and as much learnt in as many images (docs/results.md).
    config.cnn.block_sizes = ((0, 18, True), (24, 48, True), (48, 96, True), (96, 128, False))
    config.cnn.opt.update(config.cae.opt)  # Adam for both

    # How long: about so many training images a run, five folds and the test run, in num_epoch at
    # most. More is better, up to where the validation accuracy in the report no longer rises.
    config.num_folds = 5  # a class needs as many images
    config.num_epoch = 100
    config.image_budget = 660_000
    config.save_img_per_epoch = 10
    if default.is_quick(arg):
        config.image_budget = 40_000
        config.save_img_per_epoch = 5
    return config
