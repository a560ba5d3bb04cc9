"""What ``scripts/chaos.py`` runs: crashes, kills and hostile peers, for as long as asked."""
