"""What every wing uses: errors, files, progress bars, signals."""
