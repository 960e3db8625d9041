"""What people allow to be done with what is known of them."""
