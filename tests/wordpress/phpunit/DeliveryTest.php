<?php

declare(strict_types=1);

namespace PMP\Analytics\Tests;

use PMP\Analytics\Delivery\AfterResponse;
use PMP\Analytics\Delivery\Backoff;
use PMP\Analytics\Delivery\Batches;
use PMP\Analytics\Delivery\Lease;
use PMP\Analytics\Delivery\Overdue;
use PMP\Analytics\Delivery\Pause;
use PMP\Analytics\Delivery\Schedule;
use PMP\Analytics\Queue\Kind;
use PMP\Analytics\Queue\Message;
use ActionScheduler_Double;
use Closure;
use PMP_Event_Queue;
use WP_CLI;

final class DeliveryTest extends SiteTestCase
{
    public function test_a_message_is_delivered_once_and_forgotten(): void
    {
        $this->add_events(['a', 'b']);

        $this->drain();
        $this->drain();

        self::assertSame(['a', 'b'], $this->mesh->deliveries);
        self::assertCount(1, $this->mesh->calls);
        self::assertSame(0, $this->queue->state()->waiting);
    }

    public function test_events_travel_by_the_hundred_and_never_more_than_500(): void
    {
        $this->add_events($this->ids(1201));

        $this->drain();

        self::assertSame([500, 500, 201], $this->batch_sizes());
        self::assertCount(1201, array_unique($this->mesh->deliveries));
    }

    public function test_a_batch_is_never_larger_than_the_gateway_takes(): void
    {
        for ($number = 0; $number < 80; ++$number) {
            $payload = ['id' => "large-{$number}", 'metadata' => ['text' => str_repeat('x', 30_000)]];
            $this->queue->add(new Message(Kind::Event, "large-{$number}", $payload));
        }

        $this->drain();

        self::assertCount(80, $this->mesh->deliveries);
        foreach ($this->mesh->calls as $call) {
            self::assertLessThanOrEqual(1 << 20, strlen($call['arguments']['body']));
        }
        self::assertCount(3, $this->mesh->calls);
    }

    public function test_records_travel_alone_in_their_order_and_before_events(): void
    {
        $this->add_events(['e']);
        $this->queue->add(
            new Message(Kind::Registration, 'r', ['wordpress_id' => '42']),
            new Message(Kind::Profile, 'l', ['last_login' => '2026-11-22T10:15:30Z'], '42'),
            new Message(Kind::Purchase, 'p', ['id' => 'p']),
            new Message(Kind::Refund, 'f', ['reference' => '17'], '7'),
            new Message(Kind::Touchpoint, 't', ['id' => 't']),
            new Message(Kind::Conversion, 'c', ['id' => 'c']),
        );

        $this->drain();

        self::assertSame([
            'POST /api/v1/users/register',
            'PATCH /api/v1/users/42',
            'POST /api/v1/purchases/track',
            'POST /api/v1/purchases/7/refunds',
            'POST /api/v1/conversions/track',
            'POST /api/v1/journey/touchpoint',
            'POST /api/v1/events/batch',
        ], array_map(static fn (array $call): string => "{$call['method']} {$call['path']}", $this->mesh->calls));
    }

    public function test_what_a_browser_said_before_events_had_a_context_is_still_a_browsers_word(): void
    {
        global $wpdb;
        $this->add_events(['shop', 'browser']);
        $wpdb->update("{$wpdb->prefix}pmp_outbox", ['scope' => 'track'], ['message_id' => 'browser']);

        $this->drain();

        [$call] = $this->mesh->calls;
        [$shop, $browser] = json_decode((string) $call['arguments']['body'])->events;
        self::assertSame(['shop', 'browser'], [$shop->id, $browser->id]);
        self::assertFalse(isset($shop->context));
        self::assertEquals(new \stdClass(), $browser->context);
        self::assertSame('site', ClientTest::claims($call['arguments'])['scope']);
    }

    public function test_an_event_that_the_mesh_refuses_is_set_aside_with_its_reason_and_its_neighbours_arrive(): void
    {
        $this->add_events(['a', 'bad', 'c']);

        $this->drain();

        self::assertSame(['a', 'c'], $this->mesh->deliveries);
        $reason = ['kind' => 'event', 'message_id' => 'bad', 'reason' => 'timestamp: is from tomorrow'];
        self::assertSame([$reason], $this->queue->reasons());
        self::assertSame(0, $this->queue->state()->waiting);
    }

    public function test_a_batch_refused_as_a_whole_is_halved_until_the_bad_event_stands_alone(): void
    {
        $this->mesh->mood = 'strict';
        $this->add_events([...$this->ids(300, 'before'), 'bad-1', ...$this->ids(150, 'between'), 'bad-2']);

        $this->drain();

        self::assertCount(450, array_unique($this->mesh->deliveries));
        self::assertCount(450, $this->mesh->deliveries);
        self::assertSame(['bad-2', 'bad-1'], array_column($this->queue->reasons(), 'message_id'));
        self::assertStringContainsString('HTTP 400 malformed events: bad', $this->queue->reasons()[0]['reason']);
        self::assertLessThan(50, count($this->mesh->calls));
    }

    public function test_a_refused_record_does_not_stop_those_after_it(): void
    {
        $this->queue->add(
            new Message(Kind::Registration, 'r', ['email' => 'refuse-me']),
            new Message(Kind::Purchase, 'p', ['id' => 'p']),
        );

        $this->drain();

        self::assertArrayHasKey('/api/v1/purchases/track p', $this->mesh->accepted);
        self::assertSame('HTTP 400 invalid email: odd', $this->queue->reasons()[0]['reason']);
    }

    public function test_what_was_set_aside_can_be_tried_again(): void
    {
        $this->queue->add(new Message(Kind::Registration, 'r', ['email' => 'refuse-me']));
        $this->drain();

        $this->queue->requeue();

        self::assertSame(1, $this->queue->state()->waiting);
        self::assertSame(0, $this->queue->state()->set_aside);
    }

    /**
     * @return array<string, array{string}>
     */
    public static function outages(): array
    {
        return array_combine(
            $moods = ['down', 'hanging', 'garbage', 'forbidden page', 'unauthorized', 'gone', 'throttled', 'broken'],
            array_map(static fn (string $mood): array => [$mood], $moods),
        );
    }

    /**
     * @dataProvider outages
     */
    public function test_after_a_long_outage_everything_arrives_once(string $mood): void
    {
        $this->mesh->mood = $mood;
        $events = $this->ids(620);
        foreach (array_chunk($events, 10) as $hour => $ids) {
            $this->add_events($ids);
            $this->queue->add(new Message(Kind::Purchase, "p{$hour}", ['id' => "p{$hour}"]));
            $this->drain();
            $this->clock->move(600);
        }
        self::assertSame([], $this->mesh->accepted);
        self::assertLessThan(400, count($this->mesh->calls), 'a mesh in trouble is left alone');

        $this->mesh->mood = 'up';
        $this->drain_with_patience();

        self::assertEqualsCanonicalizing($events, $this->mesh->deliveries);
        self::assertCount(620 + 62, $this->mesh->accepted);
        self::assertSame(0, $this->queue->state()->set_aside);
    }

    public function test_the_mesh_is_tried_after_1_2_and_4_seconds_and_then_later(): void
    {
        $this->mesh->mood = 'down';
        $this->add_events(['a']);

        $waits = [];
        for ($try = 1; $try <= 8; ++$try) {
            $this->drain();
            self::assertCount($try, $this->mesh->calls);
            $wait = (new Pause($this->clock))->state()['until'] - $this->clock->now();
            $this->clock->move($wait - 0.01);
            $this->drain();
            self::assertCount($try, $this->mesh->calls, 'it is left alone until then');
            $this->clock->move(0.02);
            $waits[] = round($wait, 2);
        }

        self::assertSame([1.0, 2.0, 4.0], array_slice($waits, 0, 3));
        foreach ([30, 60, 120, 240, 480] as $at => $longest) {
            self::assertLessThanOrEqual($longest, $waits[$at + 3]);
            self::assertGreaterThanOrEqual($longest / 2, $waits[$at + 3]);
        }
    }

    public function test_a_throttled_shop_waits_for_as_long_as_the_mesh_asks(): void
    {
        $this->mesh->mood = 'throttled';
        $this->add_events(['a']);
        $this->drain();
        $this->mesh->mood = 'up';

        $this->clock->move(119);
        $this->drain();
        self::assertSame([], $this->mesh->deliveries);

        $this->clock->move(2);
        $this->drain();
        self::assertSame(['a'], $this->mesh->deliveries);
    }

    public function test_an_event_on_which_the_mesh_fails_does_not_hold_up_the_others_for_ever(): void
    {
        $this->mesh->poison = 'poison';
        $this->add_events([...$this->ids(250, 'before'), 'poison', ...$this->ids(249, 'after')]);

        for ($round = 0; $round < 40; ++$round) {
            $this->drain();
            $this->clock->move(901);
        }

        self::assertCount(499, array_unique($this->mesh->deliveries));
        self::assertSame(['poison'], array_column($this->outbox(), 'id'));
    }

    public function test_a_record_on_which_the_mesh_fails_waits_by_itself(): void
    {
        $this->mesh->poison = 'p1';
        foreach (['p1', 'p2', 'p3'] as $id) {
            $this->queue->add(new Message(Kind::Purchase, $id, ['id' => $id]));
        }

        $this->drain();
        $this->drain();
        self::assertCount(3, $this->mesh->calls, 'the others arrive, and it is left alone for a second');
        self::assertCount(2, $this->mesh->accepted);

        $this->mesh->poison = '';
        $this->clock->move(1);
        $this->drain();
        self::assertCount(3, $this->mesh->accepted);
    }

    public function test_after_an_outage_orders_and_people_arrive_before_events(): void
    {
        $this->add_events($this->ids(1500));
        $this->queue->add(new Message(Kind::Purchase, 'p', ['id' => 'p']));

        $this->drain();

        self::assertSame('/api/v1/purchases/track', $this->mesh->calls[0]['path']);
        self::assertCount(1501, $this->mesh->accepted);
    }

    public function test_a_success_forgets_the_failures_before_it(): void
    {
        $this->add_events(['a']);
        $this->mesh->mood = 'down';
        for ($try = 0; $try < 5; ++$try) {
            $this->drain();
            $this->clock->move(900);
        }
        self::assertSame(5, (new Pause($this->clock))->state()['failures']);

        $this->mesh->mood = 'up';
        $this->drain();

        $state = ['failures' => 0, 'until' => 0.0, 'reason' => '', 'delivered_at' => $this->clock->now()];
        self::assertEquals($state, (new Pause($this->clock))->state());
    }

    public function test_waits_grow_to_a_quarter_of_an_hour_and_differ_among_shops(): void
    {
        self::assertSame([1.0, 2.0, 4.0], array_map(static fn (int $failures): float => Backoff::seconds($failures, 0.7), [1, 2, 3]));
        self::assertSame([30.0, 60.0], [Backoff::seconds(4, 0), Backoff::seconds(5, 0)]);
        self::assertSame([15.0, 30.0], [Backoff::seconds(4, 1), Backoff::seconds(5, 1)]);
        self::assertSame([900.0, 450.0], [Backoff::seconds(1000, 0), Backoff::seconds(1000, 1)]);
    }

    public function test_one_delivery_runs_at_a_time(): void
    {
        global $wpdb;
        $this->add_events(['a']);
        $other = new Lease($wpdb, $this->clock);
        self::assertTrue($other->acquire());

        $this->drain();
        self::assertSame([], $this->mesh->calls);

        $other->release();
        $this->drain();
        self::assertSame(['a'], $this->mesh->deliveries);
    }

    public function test_what_a_killed_delivery_had_in_hand_is_delivered_by_the_next(): void
    {
        global $wpdb;
        $this->add_events($this->ids(600));
        $this->queue->add(new Message(Kind::Purchase, 'p', ['id' => 'p']));
        $this->mesh->dies_at_call = 2;
        $killed = new Lease($wpdb, $this->clock);
        try {
            $this->drain();
            self::fail('it was not killed');
        } catch (Killed) {
            // A process that is gone gives nothing back.
            $killed->acquire();
        }
        $this->drain();
        self::assertCount(2, $this->mesh->calls, 'the lease of the dead one still holds');

        $this->clock->move(61);
        $this->drain();

        self::assertCount(601, $this->mesh->accepted);
        self::assertSame(0, $this->queue->state()->waiting);
    }

    public function test_a_process_that_lost_the_lease_stops(): void
    {
        global $wpdb;
        $slow = new Lease($wpdb, $this->clock);
        $slow->acquire();
        $this->clock->move(61);
        $next = new Lease($wpdb, $this->clock);

        self::assertTrue($next->acquire());
        self::assertFalse($slow->renew());
        $slow->release();
        self::assertFalse((new Lease($wpdb, $this->clock))->acquire(), 'only its holder gives a lease back');
    }

    public function test_a_delivery_begins_no_call_after_its_time(): void
    {
        foreach ($this->ids(9) as $id) {
            $this->queue->add(new Message(Kind::Purchase, $id, ['id' => $id]));
        }
        $this->mesh->mood = 'slow';

        $this->drainer()->drain(5);

        self::assertCount(2, $this->mesh->calls);
        self::assertSame(7, $this->queue->state()->waiting);
    }

    public function test_nothing_is_called_before_the_gateway_is_known(): void
    {
        $this->add_events(['a']);
        $config = new class extends \PMP_Config {
            public function gateway_url(): string
            {
                return '';
            }
        };
        $reply = (new \PMP_API_Client($config, $this->clock))->call('POST', '/api/v1/events/batch', '{}');

        self::assertSame(0, $reply->status);
        self::assertSame([], $this->mesh->calls);
    }

    public function test_a_request_that_recorded_something_delivers_it_when_its_visitor_has_the_answer(): void
    {
        $order = [];
        $finish = function () use (&$order): bool {
            $order[] = 'answered, ' . count($this->mesh->calls) . ' calls';
            return true;
        };
        $after = $this->after_response($finish);

        $after->deliver();
        self::assertSame([], $order, 'a request that recorded nothing ends as it would');

        $this->add_events(['a']);
        $after->deliver();
        self::assertSame(['answered, 0 calls'], $order);
        self::assertSame(['a'], $this->mesh->deliveries);
    }

    public function test_overdue_messages_go_after_the_next_response_though_nothing_was_recorded(): void
    {
        $of_another_request = new PMP_Event_Queue(null, $this->clock);
        $of_another_request->add($this->event('a'));
        $after = $this->after_response(static fn (): bool => true);

        $after->deliver();
        self::assertSame([], $this->mesh->calls, 'cron has its time');

        $this->clock->move(301);
        $this->mesh->mood = 'down';
        $after->deliver();
        $after->deliver();
        self::assertCount(1, $this->mesh->calls, 'a mesh that is down is left alone');

        $this->mesh->mood = 'up';
        $this->clock->move(60);
        $after->deliver();
        self::assertSame(['a'], $this->mesh->deliveries);
    }

    public function test_where_no_response_can_be_ended_early_nothing_is_sent(): void
    {
        $after = $this->after_response(null);
        $this->add_events(['a']);

        $after->deliver();

        self::assertSame([], $this->mesh->calls);
    }

    public function test_cron_delivers(): void
    {
        $this->add_events(['a']);

        do_action('pmp_analytics_drain');

        self::assertSame(['a'], $this->mesh->deliveries);
    }

    public function test_action_scheduler_is_asked_too_until_the_plugin_is_deactivated(): void
    {
        ActionScheduler_Double::$actions = [];

        do_action('pmp_analytics_drain');
        self::assertSame(['pmp-analytics pmp_analytics_drain' => 60], ActionScheduler_Double::$actions);

        Schedule::stop();
        self::assertSame([], ActionScheduler_Double::$actions);
    }

    public function test_a_cleared_schedule_comes_back(): void
    {
        wp_clear_scheduled_hook('pmp_analytics_drain');

        (new Schedule($this->queue, $this->drainer()))->keep_running();

        self::assertSame('pmp_analytics_minute', wp_get_schedule('pmp_analytics_drain'));
    }

    public function test_a_person_whom_the_mesh_does_not_know_is_set_aside(): void
    {
        $this->queue->add(new Message(Kind::Profile, 'l', ['last_login' => '2026-11-22T10:15:30Z'], '42'));
        $this->mesh->mood = 'gone';

        $this->drain();

        self::assertSame('HTTP 404 no such path', $this->queue->reasons()[0]['reason']);
    }

    public function test_the_command_line_delivers_and_says_how_it_went(): void
    {
        WP_CLI::$said = [];
        $this->add_events(['a', 'bad']);

        (WP_CLI::$commands['pmp drain'])();
        self::assertSame(['waiting: 0, the oldest for 0 s', 'set aside: 1'], WP_CLI::$said);

        $this->mesh->mood = 'down';
        $this->add_events(['b']);
        WP_CLI::$said = [];
        (WP_CLI::$commands['pmp drain'])();
        self::assertContains('Warning: Connection refused', WP_CLI::$said);
    }

    public function test_small_batches_of_old_failures_keep_to_their_own(): void
    {
        $message = static fn (int $number, int $attempts): \PMP\Analytics\Queue\StoredMessage
            => new \PMP\Analytics\Queue\StoredMessage($number, Kind::Event, (string) $number, '', '{}', $attempts);

        $batches = Batches::of([$message(1, 0), $message(2, 7), $message(3, 0), $message(4, 7)]);

        $numbers = static fn (array $batch): array => array_map(static fn ($stored): int => $stored->number, $batch);
        self::assertSame([[1, 3], [2], [4]], array_map($numbers, $batches));
    }

    /**
     * @return list<int>
     */
    private function batch_sizes(): array
    {
        return array_map(static fn (array $call): int => count($call['body']['events']), $this->mesh->calls);
    }

    /**
     * @param Closure(): bool|null $finish
     */
    private function after_response(?Closure $finish): AfterResponse
    {
        return new AfterResponse($this->queue, $this->drainer(), new Overdue($this->queue, $this->drainer()), $finish);
    }
}
