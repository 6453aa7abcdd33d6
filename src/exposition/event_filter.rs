//! Which events a stream wants.

use super::event::number;
use super::filter::FilterError;
use crate::events::Event;
use crate::proto::{EventFilter, EventType};

/// A filter that was found valid.
#[derive(Debug, Clone, Default)]
pub struct Filter(EventFilter);

impl Filter {
    /// Checks a filter.
    ///
    /// # Errors
    /// If no event could ever match it.
    pub fn new(filter: EventFilter) -> Result<Filter, FilterError> {
        for &number in &filter.types {
            if matches!(EventType::try_from(number), Err(_) | Ok(EventType::Unspecified)) {
                return Err(FilterError::new("filter.types", format!("there is no type {number}")));
            }
        }
        if filter.processes.iter().any(String::is_empty) {
            return Err(FilterError::new("filter.processes", "no process has an empty name".to_owned()));
        }
        if let Some(port) = filter.dst_ports.iter().find(|&&port| port == 0 || port > u16::MAX.into()) {
            return Err(FilterError::new("filter.dst_ports", format!("{port} is not from 1 to {}", u16::MAX)));
        }
        Ok(Filter(filter))
    }

    /// Whether the event is wanted.
    pub fn admits(&self, event: &Event) -> bool {
        let EventFilter { types, processes, dst_ports } = &self.0;
        (types.is_empty() || types.contains(&number(event.kind).into()))
            && (processes.is_empty() || processes.iter().any(|name| **name == *event.process))
            && (dst_ports.is_empty() || event.dst.port.is_some_and(|port| dst_ports.contains(&port.into())))
    }
}
