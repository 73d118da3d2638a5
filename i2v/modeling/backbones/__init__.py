"""What turns frames into features: the image trunk and the temporal feature integrator."""
