"""The probe responder: answers health probes for this VM. Standard library only."""
