"""Runtime modules of the components of kind `precision`, imported when a matrix is packed."""
