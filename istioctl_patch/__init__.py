"""`sidegate-istioctl`: the user's own istioctl, with Sidegate's overlay. Nothing is forked."""
