"""Runtime modules of attentions, imported when one is built."""
