"""What people read: status, conditions, Events. Decides nothing."""
