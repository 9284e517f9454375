"""Runtime modules of the components of kind `block`, imported when a component is built."""
