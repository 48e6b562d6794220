DROP INDEX tenant_tokens_bound;
