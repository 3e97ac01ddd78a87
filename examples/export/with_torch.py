"""Acts by policy.pt2, with PyTorch: python with_torch.py policy.pt2."""

import json
import sys

import torch

files = {"about.json": ""}
policy = torch.export.load(sys.argv[1], extra_files=files).module()
about = json.loads(files["about.json"])
obs = torch.zeros(2, json.loads(about["spec"])["obs_dim"])
print(about["obs"])
print(policy(obs))
