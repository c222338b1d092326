"""Names, builders and weights: from what a user types to a model of timm, torchvision or the user's own file."""
