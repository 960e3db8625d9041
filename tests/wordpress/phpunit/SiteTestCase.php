<?php

declare(strict_types=1);

namespace PMP\Analytics\Tests;

use PHPUnit\Framework\TestCase;
use PMP\Analytics\Delivery\Drainer;
use PMP\Analytics\Delivery\Lease;
use PMP\Analytics\Delivery\Pause;
use PMP\Analytics\Queue\Cipher;
use PMP\Analytics\Queue\Kind;
use PMP\Analytics\Queue\Message;
use PMP\Analytics\Queue\StoredMessage;
use PMP_Analytics_Plugin;
use PMP_API_Client;
use PMP_Config;
use PMP_Event_Queue;
use WC_Data;
use WC_Order;

/**
 * A test in a real site. Its writes are rolled back, and its calls go to a double of the mesh.
 */
abstract class SiteTestCase extends TestCase
{
    /** Whether these tests record messages through the plugin only, so that they can be validated with the mesh's rules. */
    protected const RECORDS_VALID_PAYLOADS = false;

    protected MovedClock $clock;

    protected Mesh $mesh;

    protected PMP_Event_Queue $queue;

    protected PMP_Analytics_Plugin $plugin;

    protected function setUp(): void
    {
        global $wpdb;
        $wpdb->query('START TRANSACTION');
        wp_cache_flush();
        WC_Data::$kept = [];
        WC_Order::$cached = [];
        $_COOKIE = [];
        wp_set_current_user(0);
        $this->clock = MovedClock::the_one();
        $this->clock->reset();
        $this->mesh = new Mesh($this->clock);
        add_filter('pre_http_request', [$this->mesh, 'answer'], 10, 3);
        add_filter('pre_wp_mail', '__return_true');
        $this->queue = new PMP_Event_Queue(null, $this->clock);
        $this->plugin = PMP_Analytics_Plugin::instance();
    }

    protected function tearDown(): void
    {
        global $wpdb;
        remove_filter('pre_http_request', [$this->mesh, 'answer']);
        if (static::RECORDS_VALID_PAYLOADS && is_string($file = getenv('PMP_RECORDED'))) {
            foreach ($this->outbox() as $message) {
                file_put_contents($file, wp_json_encode(['test' => $this->toString()] + $message) . "\n", FILE_APPEND);
            }
        }
        $wpdb->query('ROLLBACK');
        wp_cache_flush();
    }

    protected function drainer(?PMP_Event_Queue $queue = null): Drainer
    {
        global $wpdb;
        return new Drainer(
            $queue ?? $this->queue,
            new PMP_API_Client(new PMP_Config(), $this->clock),
            new Lease($wpdb, $this->clock),
            new Pause($this->clock),
            $this->clock,
        );
    }

    /**
     * Delivers everything that is due, as another process would.
     */
    protected function drain(): void
    {
        $this->drainer()->drain(3600);
    }

    /**
     * Delivers until nothing waits, however long that takes.
     */
    protected function drain_with_patience(): void
    {
        for ($round = 0; $this->queue->state()->waiting > 0; ++$round) {
            self::assertLessThan(200, $round, 'it never arrives');
            $this->drain();
            $this->clock->move(900);
        }
    }

    /**
     * Everything that waits, whenever its time comes, in the order in which it was recorded.
     *
     * @return list<array{kind: string, id: string, target: string, payload: array<string, mixed>, json: string}>
     */
    protected function outbox(?Kind $kind = null): array
    {
        $now = $this->clock->now();
        $this->clock->move(1_000_000);
        $messages = $this->queue->due(10_000, 1 << 30);
        $this->clock->move($now - $this->clock->now());
        usort($messages, static fn (StoredMessage $one, StoredMessage $other): int => $one->number <=> $other->number);
        return array_values(array_map(
            static fn (StoredMessage $message): array => [
                'kind' => $message->kind->value,
                'id' => $message->id,
                'target' => $message->target,
                'payload' => json_decode($message->json, true),
                'json' => $message->json,
            ],
            array_filter($messages, static fn (StoredMessage $message): bool => $kind === null || $message->kind === $kind),
        ));
    }

    /**
     * @param list<string> $ids
     */
    protected function add_events(array $ids): void
    {
        $this->queue->add(...array_map($this->event(...), $ids));
    }

    protected function event(string $id): Message
    {
        return new Message(Kind::Event, $id, ['id' => $id, 'timestamp' => '2026-11-22T10:15:30Z', 'event_type' => 'page_view']);
    }

    /**
     * @return list<string> A number of ids.
     */
    protected function ids(int $count, string $prefix = 'event'): array
    {
        return array_map(static fn (int $number): string => "{$prefix}-{$number}", range(1, $count));
    }

    protected function customer(string $login = 'ada', string $role = 'customer'): int
    {
        if (get_role($role) === null) {
            add_role($role, $role);
        }
        return (int) wp_insert_user([
            'user_login' => $login,
            'user_email' => "{$login}@example.org",
            'user_pass' => 'secret',
            'first_name' => 'Ada',
            'last_name' => 'Lovelace',
            'role' => $role,
        ]);
    }

    /**
     * Sets the tracker's cookies of a session.
     */
    /** The ids of Google Analytics and Meta in the cookies of a session. */
    protected const TAGS = [
        'ga_client_id' => '1234567890.1795342000',
        'ga_session_id' => '1795342111',
        'fbp' => 'fb.1.1795342000000.987654321',
        'fbc' => 'fb.1.1795342000000.click',
    ];

    protected function start_session(): void
    {
        $_COOKIE = [
            'pmp_session' => 's-9f8e7d6c',
            'pmp_visitor' => 'a-1b2c3d4e',
            'pmp_landing' => '{"source":"newsletter","medium":"email","campaign":"spring","ref":"PARTNER7"}',
            '_ga' => 'GA1.1.1234567890.1795342000',
            '_ga_ABC123' => 'GS1.1.1795342111.3.1.1795342222.0.0.0',
            '_fbp' => 'fb.1.1795342000000.987654321',
            '_fbc' => 'fb.1.1795342000000.click',
        ];
    }

    protected function end_of_request(): void
    {
        do_action('shutdown');
    }

    protected function other_key(): Cipher
    {
        return new Cipher(str_repeat('k', 32));
    }
}
