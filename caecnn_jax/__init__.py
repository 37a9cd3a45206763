"""A convolutional autoencoder (CAE) and a CNN on images with rare classes, in JAX.

The words, each with one meaning throughout:

run         one training from the first step to its end: of a fold, or the test run
fold        one of the equal parts of the training images: its run validates on it, trains on others
split       which images a run trains on, as they are and expanded, and which it validates on
step        one update of the networks by one batch
epoch       one visit of every image of the expanded training part, and the evaluation after it
warm-up     the first epochs, in which the CAE trains alone; the epochs after it are joint
record      what is known of one epoch of one run: a line of history.jsonl
result      what a run came to: accuracy, losses, figures of each class; an entry of metrics.json
checkpoint  a run's state and records as saved after an epoch; "last" is the newest, "best" the best
lane        the devices that a run trains on; a command's runs are dealt out to its lanes

The letters in the shapes of arrays, unless a module says otherwise:

B  images of a batch        H, W  an image's height and width in pixels
K  classes                  C     channels of an image or of a code
"""
