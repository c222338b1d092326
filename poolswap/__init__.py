"""poolswap: replace the pooling layers of timm and torchvision models with SoftPool, and measure what the swap did."""
