"""Who a visitor is: users, the identifiers they are seen with, and which users are one person."""
