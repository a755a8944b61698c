"""What Sidegate costs in a real Istio mesh and how soon it acts there."""
