"""What representations know: extraction of latents and hidden states, analyses of them, probes on them."""
