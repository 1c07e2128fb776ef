"""The entry point names ``broken_missing_module_plugin``, which was left out of the distribution."""
