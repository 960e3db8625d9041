<?php

declare(strict_types=1);

namespace PMP\Analytics\Payload;

/**
 * Bodies of pmp.purchases.v1.Purchase and pmp.purchases.v1.Refund.
 */
final class PurchasePayload
{
    private const MAX_LINES = 200;

    private const MAX_COUPONS = 100;

    private const MAX_COURSES = 100;

    private const PRODUCT_TYPES = ['course', 'guide', 'membership', 'other'];

    /**
     * @param array<string, mixed> $facts The purchase's own fields; `order_id`, `timestamp` and one of
     *     `user_id`, `email` and `session_id` are required. Without `is_staff` nothing is stated of that.
     * @return array<string, mixed>
     */
    public static function of(array $facts): array
    {
        $lines = array_map(self::line(...), array_slice(array_values((array) ($facts['lines'] ?? [])), 0, self::MAX_LINES));
        $first = $lines[0] ?? [];
        return Clean::only_given([
            'id' => Clean::id($facts['id'] ?? ''),
            'timestamp' => Clean::time($facts['timestamp'] ?? null),
            'user_id' => Clean::id($facts['user_id'] ?? ''),
            'order_id' => Clean::id($facts['order_id'] ?? ''),
            'product_id' => Clean::text($facts['product_id'] ?? $first['product_id'] ?? '', 100),
            'product_name' => Clean::text($facts['product_name'] ?? $first['product_name'] ?? '', 255),
            'product_type' => self::product_type($facts['product_type'] ?? $first['product_type'] ?? ''),
            'amount' => Clean::money($facts['amount'] ?? null),
            'currency' => self::code($facts['currency'] ?? '', 3),
            'payment_method' => Clean::text($facts['payment_method'] ?? '', 50),
            'payment_status' => Clean::text($facts['payment_status'] ?? '', 50),
            'paid_at' => Clean::time($facts['paid_at'] ?? null),
            'billing_address' => Clean::metadata(array_filter((array) ($facts['billing_address'] ?? []))),
            'utm_parameters' => Clean::utm($facts['utm_parameters'] ?? []),
            'metadata' => Clean::metadata($facts['metadata'] ?? []),
            'email' => Clean::email($facts['email'] ?? ''),
            'session_id' => Clean::id($facts['session_id'] ?? ''),
            'lines' => $lines,
            'discount_total' => Clean::money($facts['discount_total'] ?? null),
            'tax_total' => Clean::money($facts['tax_total'] ?? null),
            'shipping_total' => Clean::money($facts['shipping_total'] ?? null),
            'coupon_codes' => self::coupons((array) ($facts['coupon_codes'] ?? [])),
            'country' => self::code($facts['country'] ?? '', 2),
            'referral_code' => Clean::text($facts['referral_code'] ?? '', 100),
            'refunded_total' => Clean::money($facts['refunded_total'] ?? null),
            'source' => Clean::text($facts['source'] ?? '', 50),
            'reason' => Clean::word($facts['reason'] ?? '', 50),
            'reported_at' => Clean::time($facts['reported_at'] ?? null),
            'historical' => self::only_true($facts['historical'] ?? false),
        ]) + ['is_test' => ! empty($facts['is_test'])] + (isset($facts['is_staff']) ? ['is_staff' => (bool) $facts['is_staff']] : []);
    }

    /**
     * @param array<string, mixed> $facts The refund's own fields; `reference` and, unless it is `deleted`, `amount` are required.
     * @return array<string, mixed>
     */
    public static function refund(array $facts): array
    {
        return Clean::only_given([
            'reference' => Clean::id($facts['reference'] ?? ''),
            'amount' => Clean::money($facts['amount'] ?? null),
            'refunded_total' => Clean::money($facts['refunded_total'] ?? null),
            'timestamp' => Clean::time($facts['timestamp'] ?? null),
            'reason' => self::impersonal(Clean::text($facts['reason'] ?? '', 255)),
            'source' => Clean::text($facts['source'] ?? '', 50),
            'reported_at' => Clean::time($facts['reported_at'] ?? null),
            'historical' => self::only_true($facts['historical'] ?? false),
            'lines' => self::returned((array) ($facts['lines'] ?? [])),
        ]) + ['deleted' => ! empty($facts['deleted'])];
    }

    /**
     * What was returned; a line without a product says nothing.
     *
     * @param array<mixed> $lines
     * @return list<array<string, mixed>>
     */
    private static function returned(array $lines): array
    {
        $returned = [];
        foreach (array_slice($lines, 0, self::MAX_LINES) as $line) {
            $facts = (array) $line;
            $product = Clean::text($facts['product_id'] ?? '', 100);
            if ($product !== '') {
                $returned[] = [
                    'product_id' => $product,
                    'quantity' => min(max((int) ($facts['quantity'] ?? 0), 0), 1_000_000),
                    'amount' => Clean::money($facts['amount'] ?? null) ?? 0.0,
                ];
            }
        }
        return $returned;
    }

    /**
     * @return array<string, mixed>
     */
    private static function line(mixed $facts): array
    {
        $facts = (array) $facts;
        return Clean::only_given([
            'product_id' => Clean::text($facts['product_id'] ?? '', 100),
            'product_name' => Clean::text($facts['product_name'] ?? '', 255),
            'product_type' => self::product_type($facts['product_type'] ?? ''),
            'quantity' => min(max((int) ($facts['quantity'] ?? 1), 1), 1_000_000),
            'amount' => Clean::money($facts['amount'] ?? null) ?? 0.0,
            'course_ids' => self::course_ids((array) ($facts['course_ids'] ?? [])),
        ]);
    }

    /**
     * @param array<mixed> $courses
     * @return list<string>
     */
    private static function course_ids(array $courses): array
    {
        $ids = array_filter(array_map(static fn (mixed $course): string => Clean::text($course, 255), $courses));
        return array_slice(array_values($ids), 0, self::MAX_COURSES);
    }

    private static function product_type(mixed $type): string
    {
        return in_array($type, self::PRODUCT_TYPES, true) ? $type : '';
    }

    /**
     * The code of a currency or country; empty for anything that is not so many letters.
     */
    private static function code(mixed $code, int $letters): string
    {
        return is_string($code) && preg_match("/^[A-Za-z]{{$letters}}$/D", $code) === 1 ? strtoupper($code) : '';
    }

    /**
     * Coupon codes in lower case, as WooCommerce compares them.
     *
     * @param array<mixed> $codes
     * @return list<string>
     */
    private static function coupons(array $codes): array
    {
        $codes = array_map(static fn (mixed $code): string => mb_strtolower(Clean::text($code, 255)), $codes);
        $codes = array_filter($codes, static fn (string $code): bool => $code !== '');
        return array_slice(array_values(array_unique($codes)), 0, self::MAX_COUPONS);
    }

    /**
     * A flag that is sent only if true; missing means false.
     */
    private static function only_true(mixed $flag): ?bool
    {
        return $flag === true ? true : null;
    }

    /**
     * Staff may write customers' e-mail addresses into the reason of a refund.
     */
    private static function impersonal(string $text): string
    {
        return (string) preg_replace('/[^\s<>@]+@[^\s<>@]+/', '[e-mail]', $text);
    }
}
