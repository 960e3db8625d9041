<?php

declare(strict_types=1);

namespace PMP\Analytics\Tests;

use PHPUnit\Framework\TestCase;
use PMP\Analytics\Payload\Clean;
use PMP\Analytics\Payload\ConflictPayload;
use PMP\Analytics\Payload\ConsentPayload;
use PMP\Analytics\Payload\EventPayload;
use PMP\Analytics\Payload\Uuid;
use PMP\Analytics\Payload\JourneyPayload;
use PMP\Analytics\Payload\PurchasePayload;
use PMP\Analytics\Payload\RegistrationPayload;

/**
 * The payloads that the mesh's own tests send are those that the builders make.
 */
final class PayloadTest extends TestCase
{
    private const PAYLOADS = __DIR__ . '/../../payloads/';

    private const UTM = [
        'utm_source' => 'newsletter',
        'utm_medium' => 'email',
        'utm_campaign' => 'spring',
        'utm_term' => 'pmp exam',
        'utm_content' => 'header-link',
    ];

    private const BROWSER = 'Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0';

    public function test_a_page_view(): void
    {
        $this->assert_golden('ingestion.TrackEvent', EventPayload::page_view([
            'id' => 'wp-3f2b9c1e-pv-1',
            'timestamp' => 1_795_342_530,
            'event_category' => 'content',
            'user_id' => 42,
            'session_id' => 's-9f8e7d6c',
            'page_url' => 'https://shop.example/courses/pmp-prep?utm_source=newsletter&_wpnonce=abc&utm_medium=email&key=wc_order_x',
            'page_title' => " PMP exam\npreparation ",
            'referrer' => 'https://www.google.com/',
            'utm_parameters' => self::UTM,
            'user_agent' => self::BROWSER,
            'ip_address' => '203.0.113.77',
            'metadata' => ['course_id' => 'pmp-prep', 'scroll_depth' => 0.75, 'tags' => ['exam', 'course'], 'logged_in' => true],
            'platform' => 'wordpress',
            'source' => 'plugin',
            'email' => ' ada@example.org',
            'global_privacy_control' => true,
            'historical' => true,
        ]));
    }

    public function test_a_batch_of_an_anonymous_page_view_and_a_lead(): void
    {
        $this->assert_golden('ingestion.TrackEvents', ['events' => [
            EventPayload::page_view([
                'id' => 'wp-3f2b9c1e-pv-2',
                'timestamp' => 1_795_342_560,
                'session_id' => 's-9f8e7d6c',
                'page_url' => 'https://shop.example/pricing',
                'page_title' => 'Pricing',
                'referrer' => 'https://shop.example/courses/pmp-prep',
                'utm_parameters' => [],
                'user_agent' => self::BROWSER,
                'ip_address' => '2001:db8:85a3::8a2e:370:7334',
                'metadata' => [],
            ]),
            EventPayload::of('lead_capture', [
                'id' => 'wp-3f2b9c1e-lead-1',
                'timestamp' => '2026-11-22T11:16:05.250+01:00',
                'session_id' => 's-9f8e7d6c',
                'page_url' => 'https://shop.example/guide',
                'email' => 'ada@example.org',
                'metadata' => ['form' => 'lead-magnet'],
            ]),
        ]]);
    }

    public function test_a_registration(): void
    {
        $this->assert_golden('identity.RegisterUser', RegistrationPayload::of([
            'wordpress_id' => 42,
            'email' => 'ada@example.org',
            'first_name' => 'Ada',
            'last_name' => 'Lovelace',
            'registration_date' => 1_795_342_530.0,
            'session_id' => 's-9f8e7d6c',
            'anonymous_id' => 'a-1b2c3d4e',
            'utm_parameters' => self::UTM,
            'preferences' => ['language' => 'en', 'topics' => ['exam', 'course'], 'reminders' => ['weekly' => true, 'hour' => 9]],
            'email_subscriptions' => [
                ['list' => 'newsletter', 'subscribed' => true, 'changed_at' => 1_795_342_500],
                ['list' => 'offers', 'subscribed' => false, 'changed_at' => '2026-11-22T10:15:10Z'],
            ],
            'timestamp' => 1_795_342_530.0,
            'historical' => true,
        ]));
    }

    public function test_a_batch_of_registrations(): void
    {
        $this->assert_golden('identity.RegisterUsers', ['users' => [
            RegistrationPayload::of([
                'wordpress_id' => 42,
                'email' => 'ada@example.org',
                'first_name' => 'Ada',
                'last_name' => 'Lovelace',
                'registration_date' => '2025-03-01T10:00:00Z',
                'timestamp' => 1_795_342_530.0,
                'historical' => true,
            ]),
            RegistrationPayload::of([
                'wordpress_id' => 43,
                'email' => 'grace@example.org',
                'registration_date' => '2025-03-03T09:29:00Z',
                'email_subscriptions' => [['list' => 'newsletter', 'subscribed' => true, 'changed_at' => '2025-03-03T09:29:00Z']],
                'timestamp' => 1_795_342_530.0,
            ]),
        ]]);
    }

    public function test_a_changed_profile(): void
    {
        $this->assert_golden('identity.UpdateUser', RegistrationPayload::profile([
            'email' => 'ada.lovelace@example.org',
            'first_name' => 'Augusta Ada',
            'last_name' => 'King',
            'preferences' => ['language' => 'fr', 'reminders' => null],
            'email_subscriptions' => [['list' => 'offers', 'subscribed' => true, 'changed_at' => '2026-11-22T11:00:00Z']],
            'last_login' => '2026-11-22T10:59:00Z',
            'updated_at' => '2026-11-22T11:00:00Z',
        ]));
    }

    public function test_a_purchase(): void
    {
        $this->assert_golden('purchases.TrackPurchase', PurchasePayload::of([
            'id' => 'wp-3f2b9c1e-order-1016-paid',
            'timestamp' => new \DateTime('2026-11-20T11:15:30+01:00'),
            'user_id' => '42',
            'order_id' => '1016',
            'amount' => '228.90',
            'currency' => 'eur',
            'payment_method' => 'stripe',
            'payment_status' => 'processing',
            'paid_at' => new \DateTime('2026-11-20T10:16:02Z'),
            'billing_address' => [
                'first_name' => 'Ada',
                'last_name' => 'Lovelace',
                'company' => '',
                'address_1' => "12 St James's Square",
                'city' => 'London',
                'postcode' => 'SW1Y 4JH',
                'country' => 'GB',
                'phone' => '+44 20 7946 0000',
            ],
            'utm_parameters' => self::UTM,
            'metadata' => [
                'ga_client_id' => '1234567890.1732096530',
                'ga_session_id' => '1763633000',
                'fbp' => 'fb.1.1763633000123.987654321',
                'fbc' => 'fb.1.1763633000123.IwAR2F4-dbP0l7Mn1IawQQGCINEz7PYXQvwjNwB_qa2ofrHyiLjcbCRxTDMgk',
                'user_agent' => 'Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0',
                'page_url' => 'https://shop.example/checkout/',
                'customer_note' => '',
                'items' => 2,
            ],
            'email' => 'ada@example.org',
            'session_id' => 's-9f8e7d6c',
            'lines' => [
                [
                    'product_id' => 201,
                    'product_name' => 'PMP exam preparation',
                    'product_type' => 'course',
                    'amount' => 199,
                    'course_ids' => [77, '78', ''],
                ],
                ['product_id' => 305, 'product_name' => 'Formula guide', 'product_type' => 'guide', 'quantity' => '2', 'amount' => '29.9'],
            ],
            'discount_total' => 20,
            'tax_total' => '36.54',
            'shipping_total' => '4.90',
            'coupon_codes' => ['SPRING10', '', 'spring10'],
            'country' => 'gb',
            'referral_code' => 'PARTNER7',
            'refunded_total' => 0.0,
            'source' => 'plugin',
            'reason' => 'edited',
            'reported_at' => 1795169763.25,
            'historical' => true,
            'is_staff' => false,
        ]));
    }

    public function test_a_batch_of_purchases(): void
    {
        $this->assert_golden('purchases.TrackPurchases', ['purchases' => [
            PurchasePayload::of([
                'id' => 'wp-backfill-1014',
                'timestamp' => '2025-03-02T08:00:00Z',
                'user_id' => '42',
                'order_id' => '1014',
                'amount' => '199.00',
                'currency' => 'USD',
                'payment_method' => 'stripe',
                'payment_status' => 'completed',
                'paid_at' => '2025-03-02T08:01:00Z',
                'email' => 'ada@example.org',
                'lines' => [['product_id' => 201, 'product_name' => 'PMP exam preparation', 'product_type' => 'course', 'amount' => 199]],
                'source' => 'plugin',
                'reported_at' => 1_795_342_530.0,
                'historical' => true,
                'is_staff' => false,
            ]),
            PurchasePayload::of([
                'id' => 'wp-backfill-1015',
                'timestamp' => '2025-03-03T09:30:00Z',
                'order_id' => '1015',
                'amount' => '29.90',
                'currency' => 'EUR',
                'payment_status' => 'refunded',
                'paid_at' => '2025-03-03T09:30:00Z',
                'email' => 'grace@example.org',
                'lines' => [['product_id' => 305, 'product_name' => 'Formula guide', 'product_type' => 'guide', 'amount' => 29.9]],
                'refunded_total' => 29.9,
                'source' => 'plugin',
                'reported_at' => 1_795_342_530.0,
                'historical' => true,
            ]),
        ]]);
    }

    public function test_a_refund(): void
    {
        $this->assert_golden('purchases.RefundPurchase', PurchasePayload::refund([
            'reference' => 1017,
            'amount' => '29.90',
            'refunded_total' => 29.9,
            'timestamp' => '2026-11-21T09:00:00Z',
            'reason' => 'guide not needed',
            'source' => 'plugin',
            'reported_at' => '2026-11-21T09:00:01.500Z',
            'historical' => true,
            'lines' => [
                ['product_id' => 305, 'quantity' => 2, 'amount' => '29.90'],
                ['product_id' => '', 'quantity' => 1, 'amount' => 1],
                ['product_id' => '201', 'quantity' => -3],
                null,
            ],
        ]));
    }

    public function test_a_touchpoint(): void
    {
        $this->assert_golden('journeys.TrackTouchpoint', JourneyPayload::touchpoint([
            'id' => 'wp-3f2b9c1e-tp-1',
            'timestamp' => '2026-11-22T10:20:00Z',
            'user_id' => 42,
            'session_id' => 's-9f8e7d6c',
            'stage' => 'interest',
            'action' => 'download',
            'touchpoint' => 'lead_magnet',
            'source' => 'newsletter',
            'medium' => 'email',
            'campaign' => 'spring',
            'value' => '12.5',
            'page_url' => 'https://shop.example/free-pmp-guide',
            'time_spent' => '95',
            'metadata' => ['asset' => 'pmp-formulas.pdf', 'pages' => 12, 'tags' => ['exam', 'formulas']],
        ]));
    }

    public function test_a_conversion(): void
    {
        $this->assert_golden('journeys.TrackConversion', JourneyPayload::conversion('lead', [
            'id' => 'wp-3f2b9c1e-cv-1',
            'timestamp' => '2026-11-22T10:21:30Z',
            'user_id' => 42,
            'session_id' => 's-9f8e7d6c',
            'value' => 25,
            'currency' => 'eur',
            'email' => 'ada@example.org',
            'source' => 'newsletter',
            'page_url' => 'https://shop.example/free-pmp-guide',
            'utm_parameters' => self::UTM,
            'metadata' => ['form' => 'lead-magnet', 'fields' => 2],
        ]));
    }

    public function test_an_answer_to_the_question_of_consent(): void
    {
        $this->assert_golden('gdpr.UpdateConsent', ConsentPayload::of([
            'analytics_tracking' => true,
            'marketing_emails' => true,
            'third_party_sharing' => false,
            'policy_version' => '2026-11',
            'source' => 'banner',
            'timestamp' => 1_795_342_530,
        ]));
    }

    public function test_an_odd_value_does_not_cost_the_record_around_it(): void
    {
        $payload = EventPayload::of('Started checkout!', [
            'id' => "a'; DROP TABLE events",
            'timestamp' => 'yesterday',
            'session_id' => ['array'],
            'page_title' => "broken \xC3\x28 text",
            'ip_address' => 'unknown',
            'email' => 'nobody',
            'metadata' => ['not a number' => NAN, 'object' => new \stdClass(), 'nested' => ['deep' => []]],
        ]);

        self::assertSame(['event_type' => 'started_checkout', 'page_title' => 'broken ( text', 'metadata' => ['nested' => []]], $payload);
    }

    public function test_metadata_stays_within_the_contracts_size_and_depth(): void
    {
        $deep = 'bottom';
        for ($level = 0; $level < 12; ++$level) {
            $deep = ['level' => $deep, 'name' => $level];
        }
        $metadata = Clean::metadata(['deep' => $deep] + array_fill_keys(range(1, 40), str_repeat('é', 600)));

        self::assertTrue($metadata['truncated']);
        self::assertLessThanOrEqual(16_384, strlen(json_encode($metadata, JSON_THROW_ON_ERROR)));
        self::assertIsString(json_encode($metadata, JSON_THROW_ON_ERROR, 8));
    }

    public function test_an_address_keeps_its_page_and_loses_its_keys(): void
    {
        self::assertSame(
            'https://shop.example/thanks?ref=PARTNER7&utm_source=a#top',
            Clean::url('https://shop.example/thanks?key=wc_order_x&ref=PARTNER7&email=ada%40example.org&reset_token=1&utm_source=a#top'),
        );
        self::assertSame('https://shop.example/', Clean::url('https://shop.example/?key=1'));
    }

    public function test_a_conflict(): void
    {
        $this->assert_golden('destinations.RecordConflict', ConflictPayload::of([
            'id' => 'wp-conflict-5f2c',
            'field' => 'first_name',
            'site_value' => "Ada\n",
            'mesh_value' => 'Augusta',
            'kept' => 'wordpress',
            'decided_at' => 1_795_342_530,
        ]));
    }

    public function test_made_ids_sort_by_their_time_and_are_uuids(): void
    {
        $early = Uuid::make(1_795_342_530.0);
        $late = Uuid::make(1_795_342_530.002);

        self::assertMatchesRegularExpression('/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/', $early);
        self::assertLessThan($late, $early);
        self::assertSame(1_795_342_530_000, hexdec(substr(str_replace('-', '', $early), 0, 12)));
    }

    /**
     * @param array<string, mixed> $built
     */
    private function assert_golden(string $name, array $built): void
    {
        $golden = json_decode((string) file_get_contents(self::PAYLOADS . "{$name}.json"), false, 16, JSON_THROW_ON_ERROR);
        $json = wp_json_encode($built, JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE);
        // As objects: an empty list where the mesh wants an empty object would be refused.
        self::assertEquals($golden, json_decode((string) $json));
        self::assertEqualsCanonicalizing(array_keys((array) $golden), array_keys($built), 'a field more or less');
    }
}
