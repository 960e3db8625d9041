<?php

declare(strict_types=1);

namespace PMP\Analytics\Tests;

use PMP\Analytics\Installer;
use PMP\Analytics\Queue\Kind;
use PMP\Analytics\Queue\Message;
use PMP\Analytics\Queue\Table;
use PMP_Config;
use PMP_Event_Queue;

final class OutboxTest extends SiteTestCase
{
    public function test_what_is_recorded_is_a_row_at_once_and_nothing_is_sent(): void
    {
        self::assertTrue($this->queue->add($this->event('a')));

        self::assertSame(['a'], array_column($this->outbox(), 'id'));
        self::assertSame([], $this->mesh->calls);
    }

    public function test_a_message_that_waits_is_not_recorded_again(): void
    {
        $this->queue->add($this->event('a'), $this->event('b'));

        self::assertTrue($this->queue->add($this->event('b'), $this->event('c')));

        self::assertSame(['a', 'b', 'c'], array_column($this->outbox(), 'id'));
    }

    public function test_the_same_id_of_another_kind_is_another_message(): void
    {
        $this->queue->add($this->event('wc-order-7-processing'), new Message(Kind::Purchase, 'wc-order-7-processing', ['order_id' => '7']));

        self::assertCount(2, $this->outbox());
    }

    public function test_no_personal_value_is_readable_in_the_database(): void
    {
        global $wpdb;
        $this->queue->add(new Message(Kind::Registration, 'r', ['email' => 'ada@example.org', 'first_name' => 'Ada']));

        $row = implode(' ', $wpdb->get_row("SELECT * FROM {$wpdb->prefix}pmp_outbox", ARRAY_A));

        self::assertStringNotContainsString('ada', strtolower($row));
        self::assertSame('ada@example.org', $this->outbox()[0]['payload']['email']);
    }

    public function test_the_same_text_never_looks_the_same(): void
    {
        $cipher = $this->other_key();

        self::assertNotSame($cipher->seal('Ada', 'a'), $cipher->seal('Ada', 'a'));
    }

    public function test_a_payload_moved_to_another_row_is_set_aside(): void
    {
        global $wpdb;
        $this->add_events(['mine', 'yours']);
        $wpdb->query(
            "UPDATE {$wpdb->prefix}pmp_outbox a JOIN {$wpdb->prefix}pmp_outbox b ON b.message_id = 'yours'
            SET a.payload = b.payload WHERE a.message_id = 'mine'"
        );

        $this->drain();

        self::assertSame(['yours'], $this->mesh->deliveries);
        self::assertStringContainsString('damaged', $this->queue->reasons()[0]['reason']);
    }

    public function test_rows_of_a_lost_key_are_set_aside_and_the_others_go_on(): void
    {
        (new PMP_Event_Queue(null, $this->clock, $this->other_key()))->add(...array_map($this->event(...), $this->ids(600, 'lost')));
        $this->add_events(['kept']);

        $this->drain();

        self::assertSame(['kept'], $this->mesh->deliveries);
        self::assertSame(600, $this->queue->state()->set_aside);
        self::assertSame(0, $this->queue->state()->waiting);
    }

    public function test_what_a_newer_version_wrote_is_set_aside(): void
    {
        global $wpdb;
        $this->add_events(['new', 'kept']);
        $wpdb->update("{$wpdb->prefix}pmp_outbox", ['kind' => 'dream'], ['message_id' => 'new']);

        $this->drain();

        self::assertSame(['kept'], $this->mesh->deliveries);
        self::assertSame('written by a newer version of the plugin', $this->queue->reasons()[0]['reason']);
    }

    public function test_a_full_outbox_refuses_events_before_orders(): void
    {
        $config = new class extends PMP_Config {
            public function max_waiting(): int
            {
                return 3;
            }
        };
        $queue = new PMP_Event_Queue($config, $this->clock);
        $order = static fn (int $number): Message => new Message(Kind::Purchase, "o{$number}", ['order_id' => (string) $number]);
        $queue->add(...array_map($this->event(...), $this->ids(3)));

        self::assertFalse($queue->add($this->event('one more')));
        self::assertTrue($queue->add($order(1)));
        self::assertTrue($queue->add($order(2), $order(3)));
        self::assertFalse($queue->add($order(4)));
        self::assertSame(6, $queue->state()->waiting);
    }

    public function test_a_refused_message_is_said_to_be_lost(): void
    {
        global $wpdb;
        $lost = [];
        add_action('pmp_analytics_not_recorded', static function (Message $message) use (&$lost): void {
            $lost[] = $message->id;
        });
        $prefix = $wpdb->prefix;
        $wpdb->prefix = 'missing_';
        $table = Table::of_this_site();
        $wpdb->prefix = $prefix;

        self::assertFalse((new PMP_Event_Queue(null, $this->clock, null, $table))->add($this->event('a')));
        self::assertSame(['a'], $lost);
    }

    public function test_a_delivery_takes_no_more_into_its_memory_than_it_asks_for(): void
    {
        foreach ($this->ids(5) as $id) {
            $this->queue->add(new Message(Kind::Event, $id, ['id' => $id, 'metadata' => ['text' => str_repeat('x', 1000)]]));
        }

        self::assertCount(2, $this->queue->due(500, 2500));
        self::assertCount(1, $this->queue->due(500, 10), 'one that is larger than that travels all the same');
        self::assertCount(3, $this->queue->due(3, 1 << 20));
    }

    public function test_the_state_has_the_age_of_the_oldest_message(): void
    {
        $this->add_events(['a']);
        $this->clock->move(90);
        $this->add_events(['b']);

        self::assertSame(2, $this->queue->state()->waiting);
        self::assertSame(90.0, $this->queue->state()->oldest_age);
    }

    public function test_deactivating_keeps_what_waits(): void
    {
        $this->add_events(['a']);

        deactivate_plugins('pmp-analytics/pmp-analytics.php');
        self::assertFalse(wp_next_scheduled('pmp_analytics_drain'));
        activate_plugin('pmp-analytics/pmp-analytics.php');

        self::assertSame(['a'], array_column($this->outbox(), 'id'));
        self::assertNotFalse(wp_next_scheduled('pmp_analytics_drain'));
    }

    public function test_a_new_version_of_the_tables_keeps_the_key_and_the_rows(): void
    {
        $this->add_events(['a']);
        $key = get_option('pmp_analytics_key');
        delete_option('pmp_analytics_schema');

        (new Installer())->register();

        self::assertSame($key, get_option('pmp_analytics_key'));
        self::assertSame(['a'], array_column($this->outbox(), 'id'));
    }

    public function test_what_nobody_looked_at_for_a_season_is_forgotten(): void
    {
        $this->add_events(['bad']);
        $this->drain();
        $this->queue->tidy();
        self::assertSame(1, $this->queue->state()->set_aside);

        $this->clock->move(91 * 86400);
        $this->queue->tidy();

        self::assertSame(0, $this->queue->state()->set_aside);
    }
}
