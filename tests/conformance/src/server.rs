//! The server: what it can do, and which part of it answers what.

use std::sync::{Arc, Mutex};

use rmcp::model::{
    CacheScope, CallToolRequestParams, CallToolResponse, CancelTaskParams, CompleteRequestParams, CompleteResult,
    GetPromptRequestParams, GetPromptResponse, GetTaskParams, GetTaskResult, Implementation, ListPromptsResult,
    ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, LoggingLevel, PaginatedRequestParams,
    ReadResourceRequestParams, ReadResourceResponse, ServerCapabilities, ServerInfo, SetLevelRequestParams,
    SubscribeRequestParams, SubscriptionFilter, Tool, UnsubscribeRequestParams, UpdateTaskParams,
};
use rmcp::service::{NotificationContext, RequestContext, SubscriptionContext};
use rmcp::task_manager::TaskManager;
use rmcp::{ErrorData, RoleServer, ServerHandler};

use crate::changes::{Listeners, Watched, lock};
use crate::tools::Call;
use crate::{asking, completions, prompts, resources, tools};

type Context = RequestContext<RoleServer>;
type Page = Option<PaginatedRequestParams>;

/// For how long clients may keep lists and resources: they never change.
const KEEP_MS: u64 = 60_000;

/// One session with a server, or one request of a client that has no sessions.
pub(crate) struct Everything {
    shared: Arc<Shared>,
    log_level: Mutex<LoggingLevel>,
    watched: Watched,
}

#[derive(Default)]
struct Shared {
    listeners: Listeners,
    tasks: TaskManager,
}

impl Default for Everything {
    fn default() -> Self {
        Self { shared: Arc::default(), log_level: Mutex::new(LoggingLevel::Debug), watched: Watched::default() }
    }
}

impl Everything {
    /// Another session with the same server.
    pub(crate) fn session(&self) -> Self {
        Self { shared: self.shared.clone(), ..Self::default() }
    }

    /// Who hears of changes.
    pub(crate) fn listeners(&self) -> &Listeners {
        &self.shared.listeners
    }

    /// The tasks under way.
    pub(crate) fn tasks(&self) -> &TaskManager {
        &self.shared.tasks
    }

    /// From where on this session wants log messages.
    pub(crate) fn log_level(&self) -> &Mutex<LoggingLevel> {
        &self.log_level
    }
}

impl ServerHandler for Everything {
    fn get_info(&self) -> ServerInfo {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_tool_list_changed()
            .enable_prompts()
            .enable_prompts_list_changed()
            .enable_resources()
            .enable_resources_subscribe()
            .enable_completions()
            .enable_logging()
            .enable_tasks()
            .build();
        ServerInfo::new(capabilities)
            .with_server_info(Implementation::new("portolan-everything", env!("CARGO_PKG_VERSION")))
            .with_instructions("Everything here is for tests.")
    }

    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        self.listeners().add(context.peer, self.watched.clone());
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        tools::named(name)
    }

    async fn list_tools(&self, _: Page, _: Context) -> Result<ListToolsResult, ErrorData> {
        let listed = ListToolsResult::with_all_items(tools::all()?);
        Ok(listed.with_ttl_ms(KEEP_MS).with_cache_scope(CacheScope::Public))
    }

    async fn call_tool(&self, request: CallToolRequestParams, context: Context) -> Result<CallToolResponse, ErrorData> {
        tools::call(Call { server: self, request, context }).await
    }

    async fn list_resources(&self, _: Page, _: Context) -> Result<ListResourcesResult, ErrorData> {
        let listed = ListResourcesResult::with_all_items(resources::all());
        Ok(listed.with_ttl_ms(KEEP_MS).with_cache_scope(CacheScope::Public))
    }

    async fn list_resource_templates(&self, _: Page, _: Context) -> Result<ListResourceTemplatesResult, ErrorData> {
        let listed = ListResourceTemplatesResult::with_all_items(resources::templates());
        Ok(listed.with_ttl_ms(KEEP_MS).with_cache_scope(CacheScope::Public))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: Context,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let read = resources::read(&request.uri)?;
        Ok(read.with_ttl_ms(KEEP_MS).with_cache_scope(CacheScope::Public).into())
    }

    async fn subscribe(&self, request: SubscribeRequestParams, _: Context) -> Result<(), ErrorData> {
        lock(&self.watched).insert(request.uri);
        Ok(())
    }

    async fn unsubscribe(&self, request: UnsubscribeRequestParams, _: Context) -> Result<(), ErrorData> {
        lock(&self.watched).remove(&request.uri);
        Ok(())
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(requested.clone())
    }

    async fn listen(&self, stream: SubscriptionContext) -> Result<(), ErrorData> {
        self.listeners().keep(&stream).await;
        Ok(())
    }

    async fn list_prompts(&self, _: Page, _: Context) -> Result<ListPromptsResult, ErrorData> {
        let listed = ListPromptsResult::with_all_items(prompts::all());
        Ok(listed.with_ttl_ms(KEEP_MS).with_cache_scope(CacheScope::Public))
    }

    async fn get_prompt(
        &self,
        mut request: GetPromptRequestParams,
        context: Context,
    ) -> Result<GetPromptResponse, ErrorData> {
        loop {
            let needed = match prompts::get(&request)? {
                GetPromptResponse::InputRequired(needed) if asking::has_session(&context) => needed,
                answer => return Ok(answer),
            };
            let asked = asking::ask(&context, needed.input_requests).await;
            request.input_responses = Some(asked.map_err(|error| ErrorData::internal_error(error.to_string(), None))?);
        }
    }

    async fn complete(&self, request: CompleteRequestParams, _: Context) -> Result<CompleteResult, ErrorData> {
        completions::complete(&request)
    }

    async fn set_level(&self, request: SetLevelRequestParams, context: Context) -> Result<(), ErrorData> {
        if context.protocol_version().is_some_and(|version| !version.has_initialize()) {
            return Err(ErrorData::method_not_found::<rmcp::model::SetLevelRequestMethod>());
        }
        *lock(&self.log_level) = request.level;
        Ok(())
    }

    async fn get_task(&self, request: GetTaskParams, _: Context) -> Result<GetTaskResult, ErrorData> {
        Ok(GetTaskResult::new(self.tasks().get_task(&request.task_id)?))
    }

    async fn update_task(&self, request: UpdateTaskParams, _: Context) -> Result<(), ErrorData> {
        self.tasks().update_task(&request.task_id, request.input_responses)
    }

    async fn cancel_task(&self, request: CancelTaskParams, _: Context) -> Result<(), ErrorData> {
        self.tasks().cancel_task(&request.task_id)
    }
}
