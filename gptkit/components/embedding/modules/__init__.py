"""Runtime modules of the components of kind `embedding`, imported when a component is built."""
