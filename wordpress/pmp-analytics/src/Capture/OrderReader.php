<?php

declare(strict_types=1);

namespace PMP\Analytics\Capture;

use PMP_Config;
use WC_Order;
use WC_Order_Item_Product;
use WC_Order_Refund;

/**
 * Reads orders by WooCommerce's CRUD API alone: where they are stored is WooCommerce's business.
 */
final class OrderReader
{
    public const SOURCE = 'plugin';

    /** What a visit was, kept on the order when it is placed. */
    private const VISIT = '_pmp_visit';

    /** WooCommerce's own statuses, which the mesh knows. */
    private const KNOWN_STATUSES = ['pending', 'on-hold', 'processing', 'completed', 'cancelled', 'refunded', 'failed'];

    public function __construct(private readonly PMP_Config $config, private readonly ProductType $product_type)
    {
    }

    /**
     * Keeps the visit on the order; does not save it.
     */
    public function remember(WC_Order $order, Visit $visit): void
    {
        $order->update_meta_data(self::VISIT, [
            'session_id' => $visit->session_id(),
            'utm_parameters' => $visit->utm(),
            'marks' => $visit->marks(),
        ]);
    }

    /**
     * The visit kept on the order; empty without one.
     *
     * @return array<mixed>
     */
    public function visit(WC_Order $order): array
    {
        return array_filter((array) $order->get_meta(self::VISIT));
    }

    /**
     * @return bool True when there was one.
     */
    public function forget_visit(WC_Order $order): bool
    {
        if ($this->visit($order) === []) {
            return false;
        }
        $order->delete_meta_data(self::VISIT);
        $order->save_meta_data();
        return true;
    }

    /**
     * Metadata of an order, or of a subscription, that is copied to another one, without what is this order's own: a renewal has no
     * visit, and the campaign of the first order did not sell it again.
     *
     * @param array<string, mixed> $metadata
     * @return array<string, mixed>
     */
    public function without_ours(array $metadata): array
    {
        return array_diff_key($metadata, [self::VISIT => true, Reported::META => true]);
    }

    /**
     * Facts for PurchasePayload::of().
     *
     * @param string $reason Why it is no order any more, trashed or deleted; empty while it is one.
     * @return array<string, mixed>
     */
    public function purchase(WC_Order $order, string $reason = ''): array
    {
        $facts = [
            'timestamp' => $order->get_date_created(),
            'order_id' => (string) $order->get_id(),
            'amount' => $order->get_total(),
            'currency' => $order->get_currency(),
            'payment_method' => $order->get_payment_method(),
            'payment_status' => $reason === '' ? $this->status($order) : 'cancelled',
            'reason' => $reason,
            'paid_at' => $order->get_date_paid(),
            'lines' => $this->lines($order),
            'refunded_total' => $this->refunded_total($order),
            'is_test' => $this->is_test($order),
            'source' => self::SOURCE,
        ];
        // Money counts whoever paid it. WooCommerce puts a made-up address in the place of an anonymised buyer's.
        return $this->is_anonymized($order) ? $facts : $facts + $this->buyer($order);
    }

    /**
     * Facts for PurchasePayload::refund().
     *
     * @return array<string, mixed>
     */
    public function refund(WC_Order $order, WC_Order_Refund $refund): array
    {
        return [
            'reference' => (string) $refund->get_id(),
            'amount' => abs((float) $refund->get_amount()),
            'refunded_total' => $this->refunded_total($order),
            'timestamp' => $refund->get_date_created(),
            'reason' => $this->is_anonymized($order) ? '' : $refund->get_reason(),
            'source' => self::SOURCE,
        ];
    }

    /**
     * Asked of the database: WooCommerce's own answers are cached, and outlive refunds that are deleted.
     *
     * @return list<WC_Order_Refund> Newest first.
     */
    public function refunds(WC_Order $order): array
    {
        $refunds = wc_get_orders(['type' => 'shop_order_refund', 'parent' => $order->get_id(), 'limit' => -1]);
        return array_values(array_filter($refunds, static fn (mixed $refund): bool => $refund instanceof WC_Order_Refund));
    }

    public function refunded_total(WC_Order $order): float
    {
        $amounts = array_map(static fn (WC_Order_Refund $refund): float => abs((float) $refund->get_amount()), $this->refunds($order));
        return (float) array_sum($amounts);
    }

    private function is_anonymized(WC_Order $order): bool
    {
        return $order->get_meta('_anonymized') === 'yes';
    }

    /**
     * @return array<string, mixed>
     */
    private function buyer(WC_Order $order): array
    {
        $is_renewal = $order->get_meta('_subscription_renewal') !== '';
        $visit = $is_renewal ? [] : $this->visit($order);
        $user_id = $order->get_customer_id();
        return [
            'user_id' => $user_id > 0 ? (string) $user_id : '',
            'billing_address' => $order->get_address('billing'),
            'utm_parameters' => $visit['utm_parameters'] ?? [],
            'metadata' => $this->metadata($order, (array) ($visit['marks'] ?? []), $is_renewal),
            'email' => $order->get_billing_email(),
            'session_id' => $visit['session_id'] ?? '',
            'is_staff' => $this->is_staff($order),
        ];
    }

    /**
     * A status of a plugin's own counts as paid when WooCommerce takes it for paid.
     */
    private function status(WC_Order $order): string
    {
        $status = $order->get_status();
        if (in_array($status, self::KNOWN_STATUSES, true)) {
            return $status;
        }
        return $order->is_paid() ? 'completed' : 'pending';
    }

    /**
     * @return list<array<string, mixed>>
     */
    private function lines(WC_Order $order): array
    {
        $lines = [];
        foreach ($order->get_items() as $item) {
            if ($item instanceof WC_Order_Item_Product) {
                $lines[] = [
                    'product_id' => (string) ($item->get_variation_id() ?: $item->get_product_id() ?: $item->get_id()),
                    'product_name' => $item->get_name(),
                    'product_type' => $this->product_type->of($item->get_product_id()),
                    'quantity' => $item->get_quantity(),
                    'amount' => (float) $item->get_total() + (float) $item->get_total_tax(),
                ];
            }
        }
        return $lines;
    }

    /**
     * @param array<mixed> $marks
     * @return array<string, mixed>
     */
    private function metadata(WC_Order $order, array $marks, bool $is_renewal): array
    {
        $number = (string) $order->get_order_number();
        return $marks + array_filter([
            'coupons' => array_values($order->get_coupon_codes()),
            'created_via' => $order->get_created_via(),
            'order_number' => $number === (string) $order->get_id() ? '' : $number,
            'is_renewal' => $is_renewal,
        ]);
    }

    /**
     * Payment providers that play at paying call it testmode.
     */
    private function is_test(WC_Order $order): bool
    {
        $gateway = wc_get_payment_gateway_by_order($order);
        $mode = is_object($gateway) ? $gateway->testmode ?? null : null;
        /**
         * An order that is no sale, but somebody's test.
         *
         * @param bool     $is_test
         * @param WC_Order $order
         */
        return (bool) apply_filters('pmp_analytics_is_test_order', in_array($mode, [true, 'yes', '1', 1], true), $order);
    }

    private function is_staff(WC_Order $order): bool
    {
        if ($order->get_customer_id() > 0) {
            return $this->config->is_staff($order->get_customer_id());
        }
        $user = get_user_by('email', $order->get_billing_email());
        return $user !== false && $this->config->is_staff($user->ID);
    }
}
