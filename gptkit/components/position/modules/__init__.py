"""Runtime modules of positions, imported when one is built."""
