"""What was observed, read in the words of decisions. No decisions here."""
