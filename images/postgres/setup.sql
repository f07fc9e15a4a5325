-- Roles, databases and passwords as the environment says; run again, it changes nothing else.
\getenv postgres_password POSTGRES_PASSWORD
\getenv ledger_password LEDGER_PASSWORD
\getenv registry_password REGISTRY_PASSWORD
SET password_encryption = 'scram-sha-256';
-- An error of a statement that holds a password goes to this session and not into the log.
SET log_min_error_statement = 'panic';

SELECT format('CREATE ROLE %I LOGIN', name)
FROM (VALUES ('ledger'), ('registry')) AS wanted (name)
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
\gexec
ALTER ROLE postgres PASSWORD :'postgres_password';
ALTER ROLE ledger PASSWORD :'ledger_password';
ALTER ROLE registry PASSWORD :'registry_password';

SELECT format('CREATE DATABASE %I OWNER %I', name, owner)
FROM (VALUES ('ledger', 'ledger'), ('registry', 'registry'), ('registry_auth', 'registry'))
    AS wanted (name, owner)
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = name)
\gexec
-- Each role reaches its own databases and no other.
REVOKE ALL ON DATABASE postgres, template1, ledger, registry, registry_auth FROM PUBLIC;
