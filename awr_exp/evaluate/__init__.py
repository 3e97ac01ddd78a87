"""Episodes with trained policies, of several runs together: `awr-exp evaluate`."""
