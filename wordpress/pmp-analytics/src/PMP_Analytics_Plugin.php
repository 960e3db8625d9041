<?php

declare(strict_types=1);

use PMP\Analytics\Admin\ConnectionBox;
use PMP\Analytics\Admin\DashboardPage;
use PMP\Analytics\Admin\DashboardWidget;
use PMP\Analytics\Admin\OrderBox;
use PMP\Analytics\Admin\SettingsPage;
use PMP\Analytics\Admin\SiteHealth;
use PMP\Analytics\Capture\Accounts;
use PMP\Analytics\Capture\Backfill;
use PMP\Analytics\Capture\Cart;
use PMP\Analytics\Capture\CoursePage;
use PMP\Analytics\Capture\Courses;
use PMP\Analytics\Capture\Enrollments;
use PMP\Analytics\Capture\Forms;
use PMP\Analytics\Capture\OrderPage;
use PMP\Analytics\Capture\OrderReader;
use PMP\Analytics\Capture\OrderList;
use PMP\Analytics\Capture\Orders;
use PMP\Analytics\Capture\ProductType;
use PMP\Analytics\Capture\Visitor;
use PMP\Analytics\Clock;
use PMP\Analytics\Connect\Connection;
use PMP\Analytics\Connect\WayBack;
use PMP\Analytics\Delivery\AfterResponse;
use PMP\Analytics\Delivery\Command;
use PMP\Analytics\Delivery\Drainer;
use PMP\Analytics\Delivery\Lease;
use PMP\Analytics\Delivery\Overdue;
use PMP\Analytics\Delivery\Pause;
use PMP\Analytics\Delivery\Schedule;
use PMP\Analytics\Installer;
use PMP\Analytics\Payload\Clean;
use PMP\Analytics\Payload\EventPayload;
use PMP\Analytics\Payload\Uuid;
use PMP\Analytics\Payload\JourneyPayload;
use PMP\Analytics\Payload\PurchasePayload;
use PMP\Analytics\Privacy\MeshData;
use PMP\Analytics\Privacy\PersonalData;
use PMP\Analytics\Privacy\SiteErasers;
use PMP\Analytics\Privacy\SubjectRequests;
use PMP\Analytics\Queue\Kind;
use PMP\Analytics\Queue\Message;
use PMP\Analytics\Registerable;
use PMP\Analytics\Reports\Reports;
use PMP\Analytics\Rest\ArrivalsRoute;
use PMP\Analytics\Rest\ChoicesRoute;
use PMP\Analytics\Rest\CollectRoute;
use PMP\Analytics\Rest\DrainRoute;
use PMP\Analytics\Rest\ErasuresRoute;
use PMP\Analytics\Rest\OrdersRoute;
use PMP\Analytics\Rest\RateLimit;
use PMP\Analytics\Rest\ReportsRoute;
use PMP\Analytics\Rest\SharingChoice;
use PMP\Analytics\Rest\UsersRoute;
use PMP\Analytics\Sync\SyncedUsers;
use PMP\Analytics\Sync\UserMeta;
use PMP\Analytics\TrackerScript;

/**
 * The plugin's public API and composition root. Themes and other plugins call its track_*() methods; each returns whether the
 * record is in the outbox. They never call the network.
 */
class PMP_Analytics_Plugin
{
    private static ?self $instance = null;

    private readonly PMP_API_Client $api_client;

    private readonly PMP_Event_Queue $event_queue;

    private readonly PMP_Config $config;

    private readonly Clock $clock;

    private readonly Drainer $drainer;

    private readonly Pause $pause;

    private readonly SyncedUsers $synced_users;

    private readonly Accounts $accounts;

    private readonly Enrollments $enrollments;

    private readonly Courses $courses;

    private readonly OrderReader $order_reader;

    private readonly Orders $orders;

    public function __construct(
        ?PMP_API_Client $api_client = null,
        ?PMP_Event_Queue $event_queue = null,
        ?PMP_Config $config = null,
        ?Clock $clock = null,
    ) {
        global $wpdb;
        $this->clock = $clock ?? new Clock();
        $this->config = $config ?? new PMP_Config();
        $this->event_queue = $event_queue ?? new PMP_Event_Queue($this->config, $this->clock);
        $this->api_client = $api_client ?? new PMP_API_Client($this->config, $this->clock);
        $this->pause = new Pause($this->clock);
        $lease = new Lease($wpdb, $this->clock);
        $this->drainer = new Drainer($this->event_queue, $this->api_client, $lease, $this->pause, $this->clock);
        $this->synced_users = new SyncedUsers($this->event_queue, $this->clock);
        $this->accounts = new Accounts($this->event_queue, $this->config, $this->clock, $this->synced_users);
        $this->enrollments = new Enrollments($this->event_queue, $this->config, $this->clock);
        $product_type = new ProductType();
        $this->courses = new Courses($product_type);
        $this->order_reader = new OrderReader($this->config, $product_type, $this->courses);
        $this->orders = new Orders($this->event_queue, $this->order_reader, $this->clock);
    }

    /**
     * The instance that is registered with WordPress.
     */
    public static function instance(): self
    {
        return self::$instance ??= new self();
    }

    public function init_hooks(): void
    {
        foreach ($this->parts() as $part) {
            $part->register();
        }
    }

    /**
     * @param array<string, mixed> $data Fields of the event, such as page_url, page_title, referrer, metadata; facts about
     *     the visitor are added from the request.
     */
    public function track_page_view(array $data = []): bool
    {
        $facts = $this->facts($data);
        return $this->event_queue->add(new Message(Kind::Event, $facts['id'], EventPayload::page_view($facts)));
    }

    /**
     * @param string               $action Type of the event: add_to_cart, video_watched, ...
     * @param array<string, mixed> $data   Fields of the event.
     */
    public function track_user_action(string $action, array $data = []): bool
    {
        $facts = $this->facts($data);
        return $this->event_queue->add(new Message(Kind::Event, $facts['id'], EventPayload::of($action, $facts)));
    }

    /**
     * @param string               $type Type of the conversion: lead, signup, enrollment, trial.
     * @param array<string, mixed> $data Fields of the conversion, such as value, currency, email.
     */
    public function track_conversion(string $type, array $data = []): bool
    {
        $facts = $this->facts($data);
        return $this->event_queue->add(new Message(Kind::Conversion, $facts['id'], JourneyPayload::conversion($type, $facts)));
    }

    /**
     * @param array<string, mixed> $data Fields of the touchpoint: action, touchpoint, stage, source, value, ...
     */
    public function track_touchpoint(array $data): bool
    {
        $facts = $this->facts($data);
        return $this->event_queue->add(new Message(Kind::Touchpoint, $facts['id'], JourneyPayload::touchpoint($facts)));
    }

    /**
     * A sale outside of WooCommerce; WooCommerce's orders are reported automatically.
     *
     * @param array<string, mixed> $order_data Fields of the purchase: order_id, amount, currency, user_id or email, lines, ...
     */
    public function track_purchase(array $order_data): bool
    {
        $facts = $this->facts($order_data);
        return $this->event_queue->add(new Message(Kind::Purchase, $facts['id'], PurchasePayload::of($facts)));
    }

    public function handle_user_registration(int $user_id): void
    {
        $this->accounts->registered($user_id);
    }

    public function handle_course_enrollment(int $user_id, int $course_id): void
    {
        $this->enrollments->enrolled($user_id, $course_id);
    }

    /**
     * Reports an order as it stands, unless that was reported already.
     */
    public function handle_woocommerce_purchase(int $order_id): void
    {
        $this->orders->touched($order_id);
        $this->orders->report_touched();
    }

    /**
     * The messages that this request has put into the outbox; for other messages than events, the kind is the event type.
     *
     * @return list<array<string, mixed>>
     */
    public function get_sent_events(): array
    {
        return array_map(
            static fn (Message $message): array => $message->payload + ['event_type' => $message->kind->value],
            $this->event_queue->recorded(),
        );
    }

    /**
     * @return list<Registerable>
     */
    private function parts(): array
    {
        $overdue = new Overdue($this->event_queue, $this->drainer);
        $rates = RateLimit::of_this_site();
        $personal_data = new PersonalData($this->event_queue, $this->order_reader, $this->synced_users);
        $backfill = new Backfill($this->event_queue, $this->orders, $this->clock);
        $reports = new Reports($this->api_client, $this->clock);
        $way_back = new WayBack($this->config, $this->api_client);
        $connection_box = new ConnectionBox(
            $this->config,
            new Connection($this->config, $this->api_client, $this->pause, $way_back),
            PMP_ANALYTICS_FILE,
        );
        return [
            new Installer(),
            new Schedule($this->event_queue, $this->drainer),
            new AfterResponse($this->event_queue, $this->drainer, $overdue, AfterResponse::finisher()),
            new Command($this->event_queue, $this->drainer, $this->pause, $backfill),
            $backfill,
            new CollectRoute($this->event_queue, $this->config, $rates, $overdue, new SharingChoice($this->event_queue), $this->clock),
            new ChoicesRoute($this->event_queue, $rates, $this->clock),
            new DrainRoute($this->drainer, $rates, $this->clock),
            new TrackerScript(PMP_ANALYTICS_FILE, $this->config),
            $this->accounts,
            $this->orders,
            $this->enrollments,
            new Forms($this->event_queue, $this->clock),
            new Cart($this),
            new CoursePage($this->courses),
            new OrderPage(),
            new SiteHealth($this->config, $this->event_queue, $this->pause),
            $personal_data,
            new MeshData($this->api_client, $this->config, new SubjectRequests($this->api_client, $this->clock)),
            new ErasuresRoute($this->config, $personal_data, new SiteErasers($this->clock), $this->clock),
            new OrdersRoute($this->config, new OrderList($this->order_reader, $this->clock), $this->clock),
            new UsersRoute($this->config, $this->synced_users, $this->clock),
            new UserMeta($this->synced_users, $this->config),
            new OrderBox($this->event_queue, $this->pause, $this->api_client),
            new ReportsRoute($reports, $this->clock, PMP_ANALYTICS_FILE),
            new DashboardPage($this->config, PMP_ANALYTICS_FILE),
            new DashboardWidget($reports, $this->config, $this->clock),
            new ArrivalsRoute($this->api_client, $this->drainer, $this->clock),
            $way_back,
            $connection_box,
            new SettingsPage($this->config, $this->event_queue, $this->pause, $backfill, $connection_box),
        ];
    }

    /**
     * @param array<string, mixed> $data
     * @return array<string, mixed>
     */
    private function facts(array $data): array
    {
        $now = $this->clock->now();
        $user_id = get_current_user_id();
        $known = ['user_id' => $user_id > 0 ? (string) $user_id : ''] + Visitor::current()->facts();
        $facts = $data + $known + ['timestamp' => $now];
        $facts['id'] = Clean::id($facts['id'] ?? '') ?: Uuid::make($now);
        return $facts;
    }
}
