//! stub until merge
pub struct Resource; pub struct LogRecord<'a>(&'a ());
