"""What watching costs: models, peers, and the instrument that times whole training steps."""
