//! What an agent speaks with: MCP's tools and resources on the desk.

use crate::desk::{Desk, Refusal};
use crate::resources;
use crate::tools::{self, BadCall, Call};
use crate::wire::{Answer, Status};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation, InitializeResult,
    ListResourcesResult, ListToolsResult, PaginatedRequestParams, ProgressNotificationParam, ReadResourceRequestParams,
    ReadResourceResponse, ReadResourceResult, ResourceContents, ServerCapabilities, Tool,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// How often whoever waits is told so.
const NOTICE_EVERY: Duration = Duration::from_secs(5);

/// How long a notice of progress may take to be handed over; an agent that does not read loses it.
const NOTICE_WITHIN: Duration = Duration::from_secs(1);

/// One agent's view of the desk. It is made anew for every request; there are no sessions.
#[derive(Debug, Clone)]
pub struct Handler {
    desk: Arc<Desk>,
    tools: Arc<[Tool]>,
}

impl Handler {
    /// At this desk.
    pub fn new(desk: Arc<Desk>) -> Self {
        Self { desk, tools: tools::all().into() }
    }

    async fn run(&self, call: Call, context: &RequestContext<RoleServer>) -> Result<Answer, Refusal> {
        match call {
            Call::Ask { change, justification } => {
                let began = tokio::time::Instant::now();
                let answer = self.desk.ask(change, justification).await?;
                // The whole call is over before its client loses patience, however slow the keeper was.
                let left = self.desk.wait_max().saturating_sub(began.elapsed());
                match answer.status {
                    Status::Pending => self.wait(&answer.id, left, context).await,
                    Status::Approved | Status::Modified | Status::Rejected | Status::Failed | Status::Ended => {
                        Ok(answer)
                    }
                }
            }
            Call::Check(check) => {
                let within = check.wait_seconds.map_or(self.desk.wait_max(), Duration::from_secs);
                self.wait(&check.id, within, context).await
            }
        }
    }

    async fn wait(&self, id: &str, within: Duration, context: &RequestContext<RoleServer>) -> Result<Answer, Refusal> {
        tokio::select! {
            answer = self.desk.verdict(id, within) => answer,
            never = notices(id, within, context) => match never {},
        }
    }
}

/// Tells the caller, if it wants to know, that its call still waits.
async fn notices(id: &str, within: Duration, context: &RequestContext<RoleServer>) -> Infallible {
    let Some(token) = context.meta.get_progress_token() else { return std::future::pending().await };
    let mut waited = Duration::ZERO;
    loop {
        tokio::time::sleep(NOTICE_EVERY).await;
        waited += NOTICE_EVERY;
        let notice = ProgressNotificationParam::new(token.clone(), waited.as_secs_f64())
            .with_total(within.as_secs_f64())
            .with_message(format!("{id} waits for a person"));
        // It is a courtesy: whoever has gone or does not read needs none.
        let _ = tokio::time::timeout(NOTICE_WITHIN, context.peer.notify_progress(notice)).await;
    }
}

impl ServerHandler for Handler {
    fn get_info(&self) -> InitializeResult {
        let capabilities = ServerCapabilities::builder().enable_tools().enable_resources().build();
        let mut info = InitializeResult::new(capabilities);
        info.server_info = Implementation::new("bottle-supervise", env!("CARGO_PKG_VERSION"));
        info.instructions = Some(tools::INSTRUCTIONS.to_owned());
        info
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.tools.iter().find(|tool| tool.name == name).cloned()
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(self.tools.to_vec()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let answered = match self.desk.call() {
            Err(refusal) => Err(refusal.to_string()),
            Ok(()) => match Call::read(&request.name, request.arguments) {
                Err(BadCall::NoTool) => return Err(ErrorData::invalid_params("there is no such tool", None)),
                Err(BadCall::Arguments(words)) => Err(words),
                Ok(call) => {
                    let answered = tokio::select! {
                        answered = self.run(call, &context) => answered,
                        // Nobody reads the answer any more; what was asked stays asked.
                        () = context.ct.cancelled() => return Err(ErrorData::internal_error("the caller has gone", None)),
                    };
                    answered.map_err(|refusal| refusal.to_string())
                }
            },
        };
        Ok(result(answered).into())
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        Ok(ListResourcesResult::with_all_items(resources::all()))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        self.desk.call().map_err(|refusal| ErrorData::invalid_request(refusal.to_string(), None))?;
        let Some(value) = resources::read(&request.uri, &self.desk) else {
            return Err(ErrorData::resource_not_found("there is no such resource", None));
        };
        let contents = ResourceContents::text(value.to_string(), request.uri).with_mime_type("application/json");
        Ok(ReadResourceResult::new(vec![contents]).with_ttl_ms(0).into())
    }
}

/// A refusal is a tool's error, which an agent reads and can mend; not one of the protocol, which its client swallows.
fn result(answered: Result<Answer, String>) -> CallToolResult {
    match answered.map(serde_json::to_value) {
        Ok(Ok(answer)) => CallToolResult::structured(answer),
        Ok(Err(error)) => CallToolResult::error(vec![ContentBlock::text(error.to_string())]),
        Err(words) => CallToolResult::error(vec![ContentBlock::text(words)]),
    }
}
