"""Runtime modules of the components of kind `head`, imported when a component is built."""
