"""A trained policy as one file that acts without awr_exp: by onnxruntime, by torch alone, or by NumPy alone."""
