"""An app whose nodes fail where a test wants them to. No model library is imported: processes start faster."""
