"""Takes the VMs of an Azure availability set out of load-balancer pools around maintenance."""
