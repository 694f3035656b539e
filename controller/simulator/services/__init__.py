"""The simulated endpoints: IMDS, Resource Manager, Blob Storage."""
