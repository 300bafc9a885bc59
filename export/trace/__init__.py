"""From the network, or a checkpoint alone, to the canonical ONNX graphs."""
