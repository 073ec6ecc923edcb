-- Words on sessions are done by the daemon that holds a lane, in its settlements, and by nobody else.
DROP FUNCTION propagation.control(TEXT, TEXT, TEXT, TEXT, TEXT);
DELETE FROM propagation.meta WHERE key = 'controls';
