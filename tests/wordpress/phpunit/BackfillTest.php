<?php

declare(strict_types=1);

namespace PMP\Analytics\Tests;

use PMP\Analytics\Capture\Backfill;
use PMP\Analytics\Capture\Courses;
use PMP\Analytics\Capture\OrderReader;
use PMP\Analytics\Capture\Orders;
use PMP\Analytics\Capture\ProductType;
use PMP\Analytics\Delivery\Schedule;
use PMP\Analytics\Queue\Kind;
use PMP_Config;
use WC_DateTime;
use WC_Order;
use WC_Order_Refund;
use WP_CLI;

/**
 * Orders from before the plugin was there.
 */
final class BackfillTest extends SiteTestCase
{
    protected const RECORDS_VALID_PAYLOADS = true;

    private Orders $orders;

    protected function setUp(): void
    {
        parent::setUp();
        $reader = new OrderReader(new PMP_Config(), new ProductType(), new Courses(new ProductType()));
        $this->orders = new Orders($this->queue, $reader, $this->clock);
    }

    public function test_paid_orders_and_their_refunds_are_reported_and_others_are_not(): void
    {
        $this->order(['status' => 'completed', 'date_created' => new WC_DateTime('2026-01-01T10:00:00Z')]);
        $this->order(['status' => 'cancelled']);
        $this->order(['status' => 'pending']);
        $refunded = $this->order(['status' => 'refunded', 'date_paid' => new WC_DateTime('2026-01-05T10:00:00Z')]);
        $refund = new WC_Order_Refund();
        $refund->set_props(['parent' => $refunded, 'amount' => '199.00']);
        $refund->save();

        $this->run_to_the_end();

        $reported = array_map(
            static fn (array $message): string => $message['kind'] . ' ' . ($message['payload']['payment_status'] ?? $message['target']),
            $this->outbox(),
        );
        self::assertSame(['purchase completed', 'purchase refunded', "refund {$refunded}"], $reported);
    }

    public function test_what_is_older_than_an_hour_is_reported_as_history_and_the_rest_as_it_happens(): void
    {
        $this->clock->move(86_400 * 3);
        $hours = fn (float $hours): WC_DateTime => new WC_DateTime('@' . (int) ($this->clock->now() - $hours * 3600));
        $this->order(['status' => 'completed', 'date_created' => $hours(50), 'date_paid' => $hours(49)]);
        $old = $this->order(['status' => 'completed', 'date_created' => $hours(40), 'date_paid' => $hours(40)]);
        $this->order(['status' => 'completed', 'date_created' => $hours(30), 'date_paid' => $hours(0.5)]);
        foreach ([20, 0.5] as $ago) {
            $refund = new WC_Order_Refund();
            $refund->set_props(['parent' => $old, 'amount' => '9.00', 'date_created' => $hours($ago)]);
            $refund->save();
        }

        $this->run_to_the_end();

        $marks = array_map(static fn (array $message): bool => $message['payload']['historical'] ?? false, $this->outbox());
        self::assertSame([true, true, false, true, false], $marks, 'two orders, refunds of the second, the newest first, and an order');
    }

    public function test_an_order_reported_as_it_happens_is_no_history(): void
    {
        $order = $this->order(['status' => 'completed', 'date_created' => new WC_DateTime('2019-05-01T00:00:00Z')]);

        $this->plugin->handle_woocommerce_purchase($order);

        self::assertArrayNotHasKey('historical', $this->outbox()[0]['payload']);
    }

    public function test_an_order_has_the_id_that_it_has_when_it_is_reported_as_it_happens(): void
    {
        $order = $this->order(['status' => 'completed']);
        $this->run_to_the_end();
        $backfilled = array_column($this->outbox(), 'id');
        $this->drain();

        // As if the plugin had never reported it.
        \WC_Data::$kept[$order]['meta'] = [];
        $this->plugin->handle_woocommerce_purchase($order);

        self::assertSame($backfilled, array_column($this->outbox(), 'id'));
    }

    public function test_what_was_reported_before_is_not_reported_again(): void
    {
        $order = $this->order(['status' => 'completed']);
        $this->plugin->handle_woocommerce_purchase($order);
        $this->drain();

        $this->run_to_the_end();
        $this->run_to_the_end();

        self::assertSame([], $this->outbox());
    }

    public function test_many_orders_of_one_second_and_of_others_are_reported_once_each_the_oldest_first(): void
    {
        $imported = array_map(fn (): int => $this->order(['status' => 'completed']), range(1, 120));
        $older = $this->order(['status' => 'completed', 'date_created' => new WC_DateTime('2019-05-01T00:00:00Z')]);
        $newer = $this->order(['status' => 'completed', 'date_created' => new WC_DateTime('2026-11-22T10:20:01Z')]);

        $this->run_to_the_end();

        $reported = array_map(static fn (array $message): int => (int) $message['payload']['order_id'], $this->outbox(Kind::Purchase));
        self::assertSame($older, $reported[0]);
        self::assertSame($newer, end($reported));
        self::assertEqualsCanonicalizing([$older, ...$imported, $newer], $reported);
    }

    public function test_a_stopped_backfill_continues_even_if_an_order_was_deleted(): void
    {
        $orders = array_map(
            fn (int $day): int => $this->order([
                'status' => 'completed',
                'date_created' => new WC_DateTime("2026-01-01T00:00:00Z +{$day} day"),
            ]),
            range(1, 120),
        );
        $backfill = $this->backfill();
        $backfill->start();
        add_filter('update_option_' . Backfill::OPTION, $stop = static fn () => throw new Killed());
        try {
            $backfill->go_on();
        } catch (Killed) {
            remove_filter('update_option_' . Backfill::OPTION, $stop);
        }
        self::assertCount(50, $this->outbox());
        unset(\WC_Data::$kept[$orders[0]]);

        $this->backfill()->start();
        $this->backfill()->go_on();

        self::assertCount(120, $this->outbox());
        self::assertFalse($this->backfill()->is_running());
    }

    public function test_old_orders_leave_room_for_what_happens_now(): void
    {
        for ($number = 0; $number < 70; ++$number) {
            $this->order(['status' => 'completed']);
        }
        $this->add_events($this->ids(980));
        $this->backfill()->start();
        $this->backfill()->go_on();
        self::assertSame(980 + 50, $this->queue->state()->waiting);
        self::assertTrue($this->backfill()->is_running());

        $this->drain();
        do_action(Schedule::HOOK);

        self::assertFalse($this->backfill()->is_running());
        self::assertSame(20, $this->queue->state()->waiting);
    }

    public function test_an_order_that_can_not_be_read_does_not_stop_the_others(): void
    {
        $log = ini_set('error_log', '/dev/null');
        $this->order(['status' => 'completed', 'total' => new \stdClass()]);
        $this->order(['status' => 'completed']);

        $this->run_to_the_end();
        ini_set('error_log', (string) $log);

        self::assertCount(1, $this->outbox());
    }

    public function test_the_command_line_reports_them_all_and_delivers(): void
    {
        for ($number = 0; $number < 70; ++$number) {
            $this->order(['status' => 'completed']);
        }
        WP_CLI::$said = [];

        (WP_CLI::$commands['pmp backfill'])();

        self::assertCount(70, $this->mesh->accepted);
        self::assertSame(['orders reported: 70', 'waiting: 0, the oldest for 0 s', 'set aside: 0'], WP_CLI::$said);
    }

    private function run_to_the_end(): void
    {
        $this->backfill()->start();
        $this->backfill()->go_on();
        self::assertFalse($this->backfill()->is_running());
    }

    private function backfill(): Backfill
    {
        return new Backfill($this->queue, $this->orders, $this->clock);
    }

    /**
     * @param array<string, mixed> $fields
     */
    private function order(array $fields): int
    {
        $order = new WC_Order();
        $order->set_props($fields + ['total' => '199.00', 'billing' => ['email' => 'guest@example.org']]);
        return $order->save();
    }
}
