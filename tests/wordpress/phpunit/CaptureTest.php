<?php

declare(strict_types=1);

namespace PMP\Analytics\Tests;

use LearnDashGroups;
use PMP\Analytics\Capture\CoursePage;
use PMP\Analytics\Capture\Courses;
use PMP\Analytics\Capture\ProductType;
use PMP\Analytics\Queue\Kind;
use WPCF7_ContactForm;
use WPCF7_Submission;
use WP_Query;

/**
 * People: who registers, logs in, enrols and leaves an address.
 */
final class CaptureTest extends SiteTestCase
{
    protected const RECORDS_VALID_PAYLOADS = true;

    public function test_a_registration_is_reported_once_with_its_session(): void
    {
        $this->start_session();

        $user = $this->customer();
        do_action('woocommerce_created_customer', $user, [], false);

        self::assertSame(['registration', 'conversion'], array_column($this->outbox(), 'kind'));
        $registration = $this->outbox(Kind::Registration)[0]['payload'];
        self::assertSame((string) $user, $registration['wordpress_id']);
        self::assertSame('ada@example.org', $registration['email']);
        self::assertSame('Lovelace', $registration['last_name']);
        self::assertSame('s-9f8e7d6c', $registration['session_id']);
        self::assertSame('a-1b2c3d4e', $registration['anonymous_id']);
        self::assertSame('newsletter', $registration['utm_parameters']['source']);
        $conversion = $this->outbox(Kind::Conversion)[0]['payload'];
        self::assertSame('signup', $conversion['conversion_type']);
        self::assertSame(self::TAGS, array_intersect_key($conversion['metadata'], self::TAGS));
    }

    public function test_a_registration_of_who_denied_marketing_in_the_consent_tool_must_not_be_shared(): void
    {
        $this->start_session();
        $_COOKIE['wp_consent_marketing'] = 'deny';

        $this->customer();

        self::assertTrue($this->outbox(Kind::Conversion)[0]['payload']['metadata']['global_privacy_control']);
    }

    public function test_a_user_registered_by_staff_has_no_session(): void
    {
        wp_set_current_user(1);
        $this->start_session();

        $this->customer();

        self::assertArrayNotHasKey('session_id', $this->outbox(Kind::Registration)[0]['payload']);
    }

    public function test_the_page_of_a_course_or_of_its_product_names_the_course(): void
    {
        array_map(static fn (string $type) => register_post_type($type, ['public' => true]), ['sfwd-courses', 'product']);
        $course = $this->post('sfwd-courses');
        $product = $this->post('product');
        update_post_meta($product, '_related_course', [$course]);

        $mark = sprintf('<div hidden data-pmp-page="course" data-pmp-course-id="%d"></div>' . "\n", $course);
        self::assertSame([$mark, $mark, ''], array_map($this->mark_of(...), [$course, $product, $this->post('page')]));

        update_post_meta($product, '_related_course', [$course, $course + 1]);
        self::assertSame('', $this->mark_of($product), 'a product of several courses is about none of them');
    }

    public function test_staff_is_not_summary_of(): void
    {
        $user = $this->customer('editor', 'editor');
        do_action('wp_login', 'editor', get_userdata($user));
        do_action('pmp_course_enrollment', $user, 7);

        self::assertSame([], $this->outbox());
    }

    public function test_a_login_has_its_session_and_time(): void
    {
        $user = $this->customer();
        $this->drain();
        $this->start_session();

        do_action('wp_login', 'ada', get_userdata($user));

        [$registration, $profile, $event] = $this->outbox();
        self::assertSame('s-9f8e7d6c', $registration['payload']['session_id']);
        self::assertSame((string) $user, $profile['target']);
        self::assertSame('2026-11-22T10:15:30Z', $profile['payload']['last_login']);
        self::assertSame('login', $event['payload']['event_type']);
        self::assertSame((string) $user, $event['payload']['user_id']);
    }

    public function test_a_login_with_incomplete_arguments_of_another_plugin_is_a_login(): void
    {
        $this->customer();
        $this->drain();

        do_action('wp_login', 'ada');
        do_action('wp_login', 'nobody');

        self::assertSame(['registration', 'profile', 'event'], array_column($this->outbox(), 'kind'));
    }

    public function test_a_changed_address_is_reported_and_another_change_is_not(): void
    {
        $user = $this->customer();
        $this->drain();

        wp_update_user(['ID' => $user, 'nickname' => 'Countess']);
        self::assertSame([], $this->outbox());

        wp_update_user(['ID' => $user, 'user_email' => 'ada.lovelace@example.org']);
        self::assertSame('ada.lovelace@example.org', $this->outbox(Kind::Profile)[0]['payload']['email']);
    }

    /**
     * @return array<string, array{string, list<string>}>
     */
    public static function lms_plugins(): array
    {
        return [
            'our own action' => ['pmp_course_enrollment', ['user', 'course']],
            'LifterLMS' => ['llms_user_enrolled_in_course', ['user', 'course']],
            'LearnDash' => ['learndash_update_course_access', ['user', 'course', 'list', 'granted']],
            'Tutor LMS' => ['tutor_after_enrolled', ['course', 'user', 'list']],
        ];
    }

    /**
     * @dataProvider lms_plugins
     * @param list<string> $order
     */
    public function test_an_enrolment_is_reported_once(string $hook, array $order): void
    {
        $course = (int) wp_insert_post(['post_title' => 'PMP exam preparation', 'post_status' => 'publish']);
        $arguments = ['user' => $this->customer(), 'course' => $course, 'list' => '', 'granted' => false];
        $this->drain();

        do_action($hook, ...array_map(static fn (string $name): mixed => $arguments[$name], $order));
        do_action($hook, ...array_map(static fn (string $name): mixed => $arguments[$name], $order));

        [$event, $conversion] = $this->outbox();
        self::assertCount(2, $this->outbox());
        self::assertSame('course_enrollment', $event['payload']['event_type']);
        self::assertSame(['course_id' => (string) $course, 'course_name' => 'PMP exam preparation'], $event['payload']['metadata']);
        self::assertSame('enrollment', $conversion['payload']['conversion_type']);
        self::assertSame((string) $arguments['user'], $conversion['payload']['user_id']);
    }

    public function test_who_lost_a_course_and_gets_it_again_enrols_again(): void
    {
        $user = $this->customer();
        $this->drain();

        do_action('learndash_update_course_access', $user, 7, '', false);
        do_action('learndash_update_course_access', $user, 7, '', true);
        do_action('learndash_update_course_access', $user, 7, '', false);

        self::assertCount(2, $this->outbox(Kind::Conversion));
    }

    public function test_a_user_with_an_unknown_registration_date_is_reported_anyway(): void
    {
        global $wpdb;
        $user = $this->customer();
        $wpdb->query("UPDATE {$wpdb->users} SET user_registered = '0000-00-00 00:00:00' WHERE ID = {$user}");
        clean_user_cache($user);
        $this->drain();

        do_action('wp_login', 'ada', get_userdata($user));

        [$registration] = $this->outbox(Kind::Registration);
        self::assertSame('ada@example.org', $registration['payload']['email']);
        self::assertArrayNotHasKey('registration_date', $registration['payload']);
    }

    public function test_who_was_removed_by_lifterlms_enrols_again(): void
    {
        $user = $this->customer();
        $this->drain();

        do_action('llms_user_enrolled_in_course', $user, 7);
        do_action('llms_user_removed_from_course', $user, 7, 'any', 'expired');
        do_action('llms_user_enrolled_in_course', $user, 7);

        self::assertCount(2, $this->outbox(Kind::Conversion));
    }

    public function test_who_was_cancelled_or_deleted_by_tutor_enrols_again(): void
    {
        $user = $this->customer();
        $record = fn (): int => (int) wp_insert_post(
            ['post_type' => 'tutor_enrolled', 'post_title' => 'Enrolled', 'post_author' => $user, 'post_parent' => 7],
        );
        $this->drain();

        do_action('tutor_after_enrolled', 7, $user, $first = $record());
        do_action('tutor_after_enrolled', 7, $user, $first);
        self::assertCount(1, $this->outbox(Kind::Conversion));

        do_action('tutor_enrollment/after/cancel', $first);
        do_action('tutor_after_enrolled', 7, $user, $second = $record());
        self::assertCount(2, $this->outbox(Kind::Conversion));

        // Tutor deletes the record itself before anybody hears of it.
        wp_delete_post($second, true);
        do_action('tutor_after_enrolled', 7, $user, $record());
        self::assertCount(3, $this->outbox(Kind::Conversion));
    }

    public function test_a_group_of_learndash_opens_its_courses(): void
    {
        $user = $this->customer();
        LearnDashGroups::$courses = [5 => [70, 71], 6 => [71]];
        LearnDashGroups::$users = [5 => [$user], 6 => []];
        $this->drain();

        do_action('ld_added_group_access', $user, 5);
        do_action('ld_added_group_access', $user, 5);
        self::assertSame(['70', '71'], $this->courses());

        // The other group opens one of them all the same.
        LearnDashGroups::$users = [5 => [], 6 => [$user]];
        do_action('ld_removed_group_access', $user, 5);
        LearnDashGroups::$users = [5 => [$user], 6 => [$user]];
        do_action('ld_added_group_access', $user, 5);
        self::assertSame(['70', '71', '70'], $this->courses());

        LearnDashGroups::$courses[6][] = 72;
        do_action('ld_added_course_group_access', 72, 6);
        self::assertSame(['70', '71', '70', '72'], $this->courses());

        LearnDashGroups::$courses[6] = [71];
        do_action('ld_removed_course_group_access', 72, 6);
        LearnDashGroups::$courses[6][] = 72;
        do_action('ld_added_course_group_access', 72, 6);
        self::assertSame(['70', '71', '70', '72', '72'], $this->courses());
    }

    public function test_contact_form_7(): void
    {
        $this->start_session();
        WPCF7_Submission::$posted = ['your-name' => 'Ada', 'your-email' => 'ada@example.org', 'your-message' => 'How long is the course?'];

        do_action('wpcf7_submit', new WPCF7_ContactForm(), ['status' => 'validation_failed']);
        do_action('wpcf7_submit', new WPCF7_ContactForm(), ['status' => 'spam']);
        self::assertSame([], $this->outbox());

        do_action('wpcf7_mail_sent', new WPCF7_ContactForm());
        do_action('wpcf7_submit', new WPCF7_ContactForm(), ['status' => 'mail_sent']);
        $this->assert_lead('cf7-28', 'Ask us');
    }

    public function test_gravity_forms(): void
    {
        $this->start_session();
        $fields = [(object) ['type' => 'text', 'id' => 1], (object) ['type' => 'email', 'id' => 2]];

        do_action(
            'gform_after_submission',
            ['1' => 'eve@example.org is what I call myself', '2' => 'ada@example.org'],
            ['id' => 5, 'title' => 'Newsletter', 'fields' => $fields],
        );

        $this->assert_lead('gravity-5', 'Newsletter');
    }

    public function test_wpforms(): void
    {
        $this->start_session();

        do_action(
            'wpforms_process_complete',
            [['type' => 'name', 'value' => 'Ada'], ['type' => 'email', 'value' => 'ada@example.org']],
            [],
            ['id' => 9, 'settings' => ['form_title' => 'Guide']],
            3,
        );

        $this->assert_lead('wpforms-9', 'Guide');
    }

    public function test_a_form_without_an_address_is_no_lead(): void
    {
        WPCF7_Submission::$posted = ['your-message' => 'Nice shop'];

        do_action('wpcf7_submit', new WPCF7_ContactForm(), ['status' => 'mail_sent']);

        self::assertSame([], $this->outbox());
    }

    public function test_what_goes_into_the_cart_is_reported(): void
    {
        $this->start_session();

        do_action('woocommerce_add_to_cart', 'key', 11, 2, 0, [], []);
        do_action('woocommerce_applied_coupon', 'spring10');

        [$added, $coupon] = array_column($this->outbox(), 'payload');
        self::assertSame('add_to_cart', $added['event_type']);
        self::assertEquals(['product_id' => '11', 'quantity' => 2], $added['metadata']);
        self::assertSame('s-9f8e7d6c', $added['session_id']);
        self::assertSame(['coupon' => 'spring10'], $coupon['metadata']);
    }

    public function test_what_is_no_product_is_not_summary_of_the_cart(): void
    {
        $this->start_session();

        foreach ([null, 0, '', 'rubbish', -1, new \stdClass(), []] as $rubbish) {
            do_action('woocommerce_add_to_cart', 'key', $rubbish, 1, $rubbish);
        }
        do_action('woocommerce_add_to_cart', 'key', 11, 'some', 0);
        self::assertSame([], $this->outbox());

        do_action('woocommerce_add_to_cart', 'key', '11', '0.5', '12');
        self::assertEquals(['product_id' => '12', 'quantity' => 0.5], $this->outbox()[0]['payload']['metadata']);
    }

    public function test_without_consent_page_views_are_not_recorded(): void
    {
        do_action('woocommerce_add_to_cart', 'key', 11, 2, 0, [], []);
        do_action('woocommerce_applied_coupon', 'spring10');
        self::assertSame([], $this->outbox());

        do_action('pmp_lead_captured', 'ada@example.org', 'guide');
        $lead = $this->outbox(Kind::Event)[0]['payload'];
        self::assertSame('ada@example.org', $lead['email'], 'given on purpose');
        self::assertSame([], array_intersect_key($lead, array_flip(['session_id', 'ip_address', 'user_agent', 'utm_parameters'])));
    }

    public function test_a_consent_tool_has_the_last_word(): void
    {
        $this->start_session();
        add_filter('pmp_analytics_has_consent', '__return_false');

        do_action('woocommerce_add_to_cart', 'key', 11, 2, 0, [], []);
        remove_filter('pmp_analytics_has_consent', '__return_false');

        self::assertSame([], $this->outbox());
    }

    public function test_the_wp_consent_api_is_heard_and_its_yes_without_a_consent_tool_is_no_consent(): void
    {
        require_once __DIR__ . '/../double/consent.php';
        $plugin = plugin_basename(PMP_ANALYTICS_FILE);
        self::assertTrue(apply_filters("wp_consent_api_registered_{$plugin}", false), 'it knows that it is asked');

        do_action('woocommerce_add_to_cart', 'key', 11, 2, 0, [], []);
        self::assertSame([], $this->outbox(), 'nobody was asked yet');

        $this->start_session();
        \WP_Consent_Double::$answers['statistics'] = false;
        do_action('woocommerce_add_to_cart', 'key', 11, 2, 0, [], []);
        self::assertSame([], $this->outbox(), 'taken back since');

        \WP_Consent_Double::$answers = [];
        do_action('woocommerce_add_to_cart', 'key', 11, 2, 0, [], []);
        self::assertCount(1, $this->outbox());
    }

    private function assert_lead(string $form, string $title): void
    {
        [$event, $conversion] = $this->outbox();
        self::assertCount(2, $this->outbox());
        self::assertSame('lead_capture', $event['payload']['event_type']);
        self::assertSame('lead', $conversion['payload']['conversion_type']);
        foreach ([$event, $conversion] as $message) {
            self::assertSame('ada@example.org', $message['payload']['email']);
            self::assertSame('s-9f8e7d6c', $message['payload']['session_id']);
            self::assertSame(['form' => $form, 'form_title' => $title] + self::TAGS, $message['payload']['metadata']);
        }
    }

    /**
     * @return list<string> The course of each enrolment that waits.
     */
    private function courses(): array
    {
        return array_map(
            static fn (array $message): string => $message['payload']['metadata']['course_id'],
            $this->outbox(Kind::Conversion),
        );
    }

    private function post(string $type): int
    {
        return (int) wp_insert_post(['post_type' => $type, 'post_title' => $type, 'post_status' => 'publish']);
    }

    private function mark_of(int $post): string
    {
        $GLOBALS['wp_query'] = new WP_Query(['p' => $post, 'post_type' => 'any']);
        ob_start();
        (new CoursePage(new Courses(new ProductType())))->mark();
        wp_reset_query();
        return (string) ob_get_clean();
    }
}
