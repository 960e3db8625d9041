<?php

declare(strict_types=1);

namespace PMP\Analytics\Tests;

use PHPUnit\Framework\Assert;
use WC_Data;
use WC_Order;
use WC_Order_Refund;

/**
 * A recording of what a real WooCommerce fired, step by step, played again: the same hooks in the same order, with the
 * arguments, statuses and totals of the recording.
 *
 * The order in the database follows the recording where WooCommerce saves: when it is new, when its status changes and when
 * its total does. (The checkout also saves outdated copies; those change nothing.)
 */
final class Trace
{
    private const CHANGED = '/^woocommerce_order_status_(?!changed)[a-z-]+$/';

    /** @var array<string, list<array<string, mixed>>> Lines by step. */
    private array $steps = [];

    /** @var list<string> Hooks played so far. */
    public array $played = [];

    /**
     * @param array<string, mixed> $order What every order of the trace is like.
     */
    public function __construct(string $file, private readonly array $order = [])
    {
        $step = '';
        foreach (file(__DIR__ . "/../traces/{$file}", FILE_IGNORE_NEW_LINES | FILE_SKIP_EMPTY_LINES) as $line) {
            $entry = json_decode($line, true, 16, JSON_THROW_ON_ERROR);
            $step = $entry['step'] ?? $step;
            if (isset($entry['hook'])) {
                $this->steps[$step][] = $entry;
            }
        }
    }

    /**
     * What happened without anybody seeing a page, and with guests, staff and providers: WooCommerce 11.0, order tables.
     *
     * @param array<string, mixed> $order
     */
    public static function of_woocommerce(array $order = []): self
    {
        return new self('wc11.0.1-wp7.1-hpos-php.jsonl', $order);
    }

    /**
     * Plays a step; the end of each of its requests is played too.
     */
    public function play(string $step): void
    {
        Assert::assertArrayHasKey($step, $this->steps);
        $request = null;
        foreach ($this->steps[$step] as $line) {
            if ($request !== null && $request !== $line['via']) {
                do_action('shutdown');
            }
            $request = $line['via'];
            $this->fire($line);
        }
        do_action('shutdown');
    }

    /**
     * @param array<string, mixed> $line
     */
    private function fire(array $line): void
    {
        $hook = $line['hook'];
        if (! str_starts_with($hook, 'woocommerce_')) {
            return;
        }
        $subject = $this->subject($line);
        if ($subject > 0) {
            $this->keep($subject, $line);
        }
        $arguments = array_map($this->argument(...), $line['args']);
        $this->prepare($hook, $arguments);
        $this->played[] = $hook;
        do_action($hook, ...$arguments);
        if ($hook === 'woocommerce_pre_delete_order_refund') {
            $this->drop($arguments[1]->get_id());
        }
    }

    /**
     * Brings about what is true when a hook fires, where the hook's order does not show it.
     *
     * @param list<mixed> $arguments
     */
    private function prepare(string $hook, array $arguments): void
    {
        $id = is_int($arguments[0] ?? null) ? $arguments[0] : 0;
        match ($hook) {
            'woocommerce_trash_order' => $this->trash($id),
            'woocommerce_untrash_order' => $this->untrash($id, $arguments[1]),
            'woocommerce_delete_order', 'woocommerce_refund_deleted' => $this->drop($id),
            'woocommerce_rest_delete_shop_order_refund_object' => array_map($this->drop(...), self::refunds()),
            'woocommerce_privacy_before_remove_order_personal_data' => $this->anonymise($arguments[0]),
            default => null,
        };
    }

    private function trash(int $id): void
    {
        $order = new WC_Order($id);
        // WooCommerce 7.9 still returns it unchanged.
        WC_Order::$cached[$id] = clone $order;
        $order->set_props(['status' => 'trash']);
        $order->save();
    }

    private function untrash(int $id, string $status): void
    {
        unset(WC_Order::$cached[$id]);
        $order = new WC_Order($id);
        $order->set_props(['status' => substr($status, strlen('wc-'))]);
        $order->save();
    }

    private function anonymise(WC_Order $order): void
    {
        $order->set_props(['billing' => ['email' => 'deleted@site.invalid'], 'customer_id' => 0]);
        $order->update_meta_data('_anonymized', 'yes');
        $order->save();
    }

    private function drop(int $id): void
    {
        unset(WC_Data::$kept[$id], WC_Order::$cached[$id]);
    }

    /**
     * @return list<int> Those that there are, the newest last.
     */
    private static function refunds(): array
    {
        return array_keys(array_filter(WC_Data::$kept, static fn (array $kept): bool => $kept['type'] === 'shop_order_refund'));
    }

    /**
     * The order or refund that a line is about.
     *
     * @param array<string, mixed> $line
     */
    private function subject(array $line): int
    {
        foreach ($line['args'] as $argument) {
            if (preg_match('/(?:Order|Order_Refund)#(\d+)$/', $argument, $found) === 1) {
                return (int) $found[1];
            }
        }
        return 0;
    }

    /**
     * @param array<string, mixed> $line
     */
    private function keep(int $id, array $line): void
    {
        if ($line['hook'] === 'woocommerce_create_refund') {
            $this->keep_refund($id, $line);
            return;
        }
        $known = isset(WC_Data::$kept[$id]);
        $order = new WC_Order($id);
        if (! $known) {
            $order->set_props($this->order + ['billing' => ['email' => 'guest@example.org'], 'created_via' => 'checkout']);
        }
        if (! $known || preg_match(self::CHANGED, $line['hook']) === 1) {
            $order->set_props(['status' => $line['status']]);
        }
        $order->set_props(['total' => $line['total']]);
        $order->save();
    }

    /**
     * @param array<string, mixed> $line
     */
    private function keep_refund(int $id, array $line): void
    {
        $refund = $this->refund_of_newest_order($id);
        $amount = ltrim((string) $line['total'], '-');
        $refund->set_props(['amount' => $amount, 'reason' => 'asked by bea@example.org']);
        $refund->save();
    }

    private function refund_of_newest_order(int $id = 0): WC_Order_Refund
    {
        $orders = array_keys(array_filter(WC_Data::$kept, static fn (array $kept): bool => $kept['type'] === 'shop_order'));
        $refund = new WC_Order_Refund($id);
        $refund->set_props(['parent' => max($orders)]);
        return $refund;
    }

    private function argument(string $recorded): mixed
    {
        return match (true) {
            preg_match('/^integer:(\d+)$/', $recorded, $found) === 1 => (int) $found[1],
            preg_match("/^string:'(.*)'$/", $recorded, $found) === 1 => $found[1],
            preg_match('/^boolean:(true|false)$/', $recorded, $found) === 1 => $found[1] === 'true',
            $recorded === 'NULL' => null,
            // Deleted: what it was is in the object still.
            preg_match('/OrderRefund#0$/', $recorded) === 1 => $this->refund_of_newest_order(),
            preg_match('/Order_?Refund#(\d+)$/', $recorded, $found) === 1 => new WC_Order_Refund((int) $found[1]),
            // Not in the database yet.
            preg_match('/Order#0$/', $recorded) === 1 => new WC_Order(),
            preg_match('/Order#(\d+)$/', $recorded, $found) === 1 => new WC_Order((int) $found[1]),
            str_starts_with($recorded, 'array(') => [],
            default => (object) ['class' => $recorded],
        };
    }
}
