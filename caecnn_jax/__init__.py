"""Joint convolutional autoencoder and CNN on class-imbalanced CIFAR-10, in JAX."""
